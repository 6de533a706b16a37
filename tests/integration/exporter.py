"""A policy engine's metrics as a process of its own: one path per engine, each told by a file what to count, and how.

``exporter.py PORT DIRECTORY``. ``DIRECTORY/<engine>.json`` holds ``{"allow": per second, "deny": per
second, "resets": times restarted so far, "nan": bool, "down": bool}`` and is read again at each scrape.
"""

import json
import math
import random
import sys
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


@dataclass
class Engine:
    """What one engine has counted since it last started."""

    counts: dict[str, int] = field(default_factory=lambda: {"allow": 0, "deny": 0})
    at: float = field(default_factory=time.monotonic)
    resets: int = 0

    def scrape(self, told: dict[str, Any], dice: random.Random) -> str:
        if told["resets"] != self.resets:
            self.counts, self.resets = {"allow": 0, "deny": 0}, told["resets"]
        now = time.monotonic()
        for decision in self.counts:
            self.counts[decision] += _poisson(told[decision] * (now - self.at), dice)
        self.at = now
        lines = [
            f'policy_engine_evaluations_total{{decision="{decision}",severity="low",tenant="global"}} {count}'
            for decision, count in self.counts.items()
        ]
        if told.get("nan"):
            lines.append('policy_engine_evaluations_total{decision="deny",severity="none",tenant="global"} NaN')
        if told.get("absurd"):
            lines.append('policy_engine_evaluations_total{decision="deny",severity="high",tenant="global"} 1e308')
        return "# TYPE policy_engine_evaluations_total counter\n" + "\n".join(lines) + "\n"


def _poisson(mean: float, dice: random.Random) -> int:
    count, left = 0, mean
    while left > 0:
        left += math.log(1.0 - dice.random())
        count += left > 0
    return count


def main(port: int, directory: Path) -> None:
    """Serve until SIGTERM."""
    engines: dict[str, Engine] = {}
    dice = random.Random(17)  # noqa: S311 - traffic, no secret

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self.path.strip("/")
            file = directory / f"{name}.json"
            told = json.loads(file.read_text()) if name.isidentifier() and file.exists() else {"down": True}
            if told.get("down"):
                self.send_error(503)
                return
            body = engines.setdefault(name, Engine()).scrape(told, dice).encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
