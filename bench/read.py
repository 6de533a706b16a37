"""``GET /v1/constitution``: answers per second, latency and processor time, in turn with two other applications."""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx

from bench.bare_read import PATH
from bench.fleet import Fleet
from bench.results import DIRECTORY, measuring
from bench.runs import BenchError
from bench.turns import ROUND_S, Asked, Server, in_turn, started, summarised
from deploy.demo.screen import Screen

KEPT: Final = ("etag", "cache-control", "constitution-version", "constitution-generation", "content-type")


def measure(screen: Screen, *, rounds: int) -> None:
    """Load all three in turn, so many rounds; store ``read``."""
    with (
        Fleet(DIRECTORY / "stack", screen) as fleet,
        measuring("read") as result,
        TemporaryDirectory() as directory,
    ):
        fleet.end(fleet.update("tool-use", "default"))
        fleet.runs.quiet(seconds=60)
        service = Server(fleet.settings["CONSTITUTION_SERVICE_URL"] + PATH, fleet.pid("constitution-service"))
        answer = httpx.get(service.url, trust_env=False)
        file = Path(directory) / "answer.json"
        headers = {name: answer.headers[name] for name in (*KEPT, "content-length")}
        file.write_text(json.dumps({"headers": headers, "body": answer.text}), encoding="utf-8")
        with started(PATH, {kind: ["bench.bare_read", kind, str(file)] for kind in ("bare", "validating")}) as others:
            for name, other in others.items():
                if httpx.get(other.url, trust_env=False).json() != answer.json():
                    raise BenchError(f"{name} answers something else than the service")
            whole, same = Asked(), Asked({"If-None-Match": answer.headers["etag"]})
            asked = {
                "200": {"service": whole, "bare": whole, "validating": whole},
                "304": {"service": same, "bare": same},  # who validates each call does it before anything is compared
            }
            found = in_turn({"service": service, **others}, asked, rounds=rounds, screen=screen)
        result["rounds"], result["round_s"], result["bytes"] = rounds, ROUND_S, len(answer.content)
        result["summary"] = summarised(found)
