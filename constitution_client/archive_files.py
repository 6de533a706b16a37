"""Files of a legal archive's checkout, read with bounds: whoever wrote them is not trusted yet."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from signatures.receipt_verify import Neighbour

MAX_FILE = 64 * 1024 * 1024  # bytes; a long watch's samples are the largest
MAX_FILES = 4000  # of one folder


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by its path there.

    Raises:
        FileRefusedError: a link, a file that cannot be read, or too many.
    """
    from constitution_client.files import FileRefusedError, read_bytes

    found: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_symlink():
            raise FileRefusedError(f"{path} is a link: an archive holds regular files")
        if path.is_dir():
            continue
        if len(found) >= MAX_FILES:
            raise FileRefusedError(f"{folder} holds more than {MAX_FILES} files")
        found[str(path.relative_to(folder))] = read_bytes(path, what="file", limit=MAX_FILE)
    return found


def receipts_in(root: Path, *, but: Path | None = None) -> "Iterator[Neighbour]":
    """Yield receipt and manifest of every folder in ``root`` but one.

    Raises:
        FileRefusedError: one cannot be read.
    """
    from constitution.receipt import RECEIPT, RECEIPT_MANIFEST
    from constitution_client.files import read_bytes
    from signatures.receipt_verify import Neighbour

    for path in sorted(root.glob(f"*/{RECEIPT}")):
        if path.parent == but:
            continue
        manifest = path.with_name(RECEIPT_MANIFEST)
        yield Neighbour(
            path.parent.name,
            read_bytes(path, what="receipt"),
            read_bytes(manifest, what="manifest") if manifest.exists() else None,
        )
