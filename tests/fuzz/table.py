"""What became of each changed input, by kind."""

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

HANGS_S = 5  # of processor time, for one input; the largest genuine one takes some milliseconds


@dataclass
class Table:
    """Counts by kind, and what must not be."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    def count(self, kind: str, end: str) -> None:
        self.counts[kind, end] += 1

    def found(self, kind: str, what: str, data: bytes) -> None:
        self.count(kind, "found")
        self.findings.append(f"{kind}: {what}: {data[:2000]!r}")

    def judge(
        self, kind: str, data: bytes, read: Callable[[bytes], Any], genuine: Any, refusals: tuple[type[Exception], ...]
    ) -> None:
        """Read a changed input: it must be refused by these errors alone, or mean what the genuine one means."""
        begun = time.process_time()
        try:
            meaning = read(data)
        except refusals:
            self.count(kind, "refused")
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - each is a finding, a Rust panic too
            self.found(kind, f"raised {type(error).__name__}: {error}"[:300], data)
        else:
            if meaning == genuine:
                self.count(kind, "unchanged")
            else:
                self.found(kind, f"accepted as {meaning!r}"[:600], data)
        if time.process_time() - begun > HANGS_S:
            self.found(kind, "took long", data)

    def lines(self) -> list[str]:
        ends = ("refused", "unchanged", "found")
        lines = [f"{'kind':34} {'inputs':>7} " + " ".join(f"{end:>9}" for end in ends)]
        for kind in dict.fromkeys(kind for kind, _ in self.counts):
            row = [self.counts[kind, end] for end in ends]
            lines.append(f"{kind:34} {sum(row):7} " + " ".join(f"{number:9}" for number in row))
        row = [sum(n for (_, of), n in self.counts.items() if of == end) for end in ends]
        return [*lines, f"{'all':34} {sum(row):7} " + " ".join(f"{number:9}" for number in row), *self.findings]
