"""Keeps downloads and builds outside the checkout, so that the next clone starts fast.

An item is a directory that is made once, under a lock, beside its final name, and then renamed into place:
a directory that is there is complete. Two checkouts that need the same item at the same time wait for one another.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.bootstrap import cache_directory


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it ends with the process, however that ends. Blocks until it is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def item(name: str, make: Callable[[Path], None], *, under: Path | None = None) -> Path:
    """Return the cached directory `name`, calling `make(empty directory)` first if there is none.

    Args:
        name: Name of the item with everything that it depends on (version, platform).
        make: Fills the directory. What it raises leaves the cache unchanged.
        under: Another directory to keep it in.

    Returns:
        The finished directory. It is never changed afterwards.
    """
    base = under or cache_directory()
    final = base / name
    if final.is_dir():
        return final
    with locked(base / f"{name}.lock"):
        if final.is_dir():
            return final
        for stale in base.glob(f"{name}.partial-*"):  # left by a process that was killed
            shutil.rmtree(stale, ignore_errors=True)
        partial = Path(tempfile.mkdtemp(prefix=f"{name}.partial-", dir=base))
        try:
            partial.chmod(0o755)
            make(partial)
            partial.rename(final)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    return final
