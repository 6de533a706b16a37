"""What the check of a release's folder found, line by line."""

from constitution.model import Model


class ReceiptLine(Model):
    """One thing that was checked.

    Args:
        ok: whether it is as the receipt says.
        what: a file of the folder, or ``chain``.
        message: who and what, or what is wrong.
        offset: of the first wrong byte in the file, from 0; null where that cannot be known.
    """

    ok: bool
    what: str
    message: str
    offset: int | None = None

    def text(self) -> str:
        """Return the line for people."""
        at = "" if self.offset is None else f", first at byte {self.offset}"
        return f"{'✓' if self.ok else '✗'} {self.what}: {self.message}{at}"


class ReceiptReport(Model):
    """Whether a folder is the whole, unchanged story of a release.

    Args:
        folder: its name.
        valid: every line is ok.
        sequence: of its receipt; null where that is not the service's.
        generation: of its release; null as above.
        lines: in the order of checking; the first that is wrong is the reason for what follows it.
    """

    folder: str
    valid: bool
    sequence: int | None
    generation: int | None
    lines: tuple[ReceiptLine, ...]

    def text(self) -> list[str]:
        """Return the report for people."""
        wrong = sum(not line.ok for line in self.lines)
        end = "valid" if self.valid else f"not valid: {wrong} of {len(self.lines)} checks failed"
        return [f"{self.folder}", *(f"  {line.text()}" for line in self.lines), f"  {end}"]


class ReceiptLines:
    """Collects lines."""

    def __init__(self) -> None:
        self.found: list[ReceiptLine] = []

    def right(self, what: str, message: str) -> None:
        """Note what is as the receipt says."""
        self.found.append(ReceiptLine(ok=True, what=what, message=message))

    def wrong(self, what: str, message: str, offset: int | None = None) -> None:
        """Note what is not."""
        self.found.append(ReceiptLine(ok=False, what=what, message=message, offset=offset))

    def report(self, folder: str, sequence: int | None, generation: int | None) -> ReceiptReport:
        """Return the report."""
        valid = all(line.ok for line in self.found)
        return ReceiptReport(
            folder=folder, valid=valid, sequence=sequence, generation=generation, lines=tuple(self.found)
        )
