"""Resident memory of each server of a stack."""

from collections.abc import Iterable
from typing import TypedDict

import psutil

from deploy.embedded.stack import ServerStatus


class Memory(TypedDict):
    """Mebibytes of a server: of its main process, and of that with all its children.

    ``rss`` counts a page that several processes share in each of them; ``pss`` counts it once in all.
    """

    processes: int
    rss: float
    rss_all: float
    pss_all: float


def memory(servers: Iterable[ServerStatus]) -> dict[str, Memory]:
    """Return what each running server takes now."""
    found: dict[str, Memory] = {}
    for server in servers:
        if server.pid is None:
            continue
        main = psutil.Process(server.pid)
        all_ = [main.memory_full_info()]
        for child in main.children(recursive=True):
            try:
                all_.append(child.memory_full_info())
            except psutil.NoSuchProcess:  # a backend that ended meanwhile
                continue
        found[server.name] = Memory(
            processes=len(all_),
            rss=_mib(all_[0].rss),
            rss_all=_mib(sum(info.rss for info in all_)),
            pss_all=_mib(sum(info.pss for info in all_)),
        )
    return found


def _mib(size: int) -> float:
    return round(size / 2**20, 1)
