"""Closed-loop load by wrk (Debian package ``wrk``): a program in C takes less of the same cores than one in Python."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.runs import BenchError

UNITS: Final = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}
_LATENCY = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m)\s*$", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)$", re.MULTILINE)
_ANSWERS = re.compile(r"^\s+(\d+) requests in ", re.MULTILINE)
_TROUBLE = re.compile(r"(Non-2xx or 3xx responses|Socket errors): .*")


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw: answers, how many per second, and seconds that half and 99 % of them took at most."""

    answers: int
    per_second: float
    p50: float
    p99: float


def load(url: str, headers: Mapping[str, str], script: Path | None = None, *, connections: int, seconds: float) -> Load:
    """Ask for a URL over kept connections for some seconds; a Lua script may say what is sent.

    Raises:
        BenchError: wrk is missing, a connection failed, or an answer was neither 2xx nor 3xx.
    """
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is not installed: apt-get install wrk")
    named = [part for name, value in headers.items() for part in ("-H", f"{name}: {value}")]
    scripted = () if script is None else ("-s", str(script))
    command = [program, "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", *named, *scripted, url]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - our own arguments
    rate, answers, trouble = (pattern.search(output) for pattern in (_RATE, _ANSWERS, _TROUBLE))
    latency = {percent: float(value) * UNITS[unit] for percent, value, unit in _LATENCY.findall(output)}
    if rate is None or answers is None or trouble is not None or len(latency) != 2:
        raise BenchError(f"wrk: {trouble.group(0) if trouble else output[-300:]}")
    return Load(int(answers.group(1)), float(rate.group(1)), latency["50"], latency["99"])
