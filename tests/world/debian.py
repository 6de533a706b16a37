"""Programs of the distribution's own packages, for servers that no package of ours can be: unpacked, not installed."""

import os
from pathlib import Path

from deploy.embedded.cache import item
from deploy.embedded.debian_package import DebianPackages
from deploy.embedded.postgres import ROOT_CACHE, open_to_all, passable


class Unpacked:
    """Packages below one folder that every user of the machine may read.

    Args:
        name: of the folder in the cache.
        packages: what to unpack; of a tuple, the first that there is.
    """

    def __init__(self, name: str, *packages: str | tuple[str, ...]) -> None:
        under = None
        if os.geteuid() == 0:  # a server that refuses to run as root reads it as another user
            passable(ROOT_CACHE)
            under = ROOT_CACHE
        self._packages = packages
        self.root = item(f"debian-{name}", self._unpack, under=under)

    def _unpack(self, target: Path) -> None:
        packages = DebianPackages(target / "apt", os.environ, target / "log")
        packages.update()
        for wanted in self._packages:
            names = (wanted,) if isinstance(wanted, str) else wanted
            packages.unpack(next(name for name in names if packages.candidate(name) is not None), target)
        open_to_all(target)

    def program(self, pattern: str) -> str:
        """Return the path of the one program that fits."""
        (found,) = self.root.glob(pattern)
        return str(found)

    @property
    def environment(self) -> dict[str, str]:
        """What its programs need to find the libraries that came with them."""
        folders = (str(found) for found in (self.root / "usr" / "lib").glob("*-linux-gnu*"))
        return {"LD_LIBRARY_PATH": ":".join(folders)}
