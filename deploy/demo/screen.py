"""What the demo shows: progress on stderr, live on a terminal, plain lines when piped; results on stdout."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.table import Table


class Screen:
    """Progress and results, with the seconds since the demo began.

    Args:
        started: unix time at which the person typed the command.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self._progress = Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())
        self._results = Console(highlight=False, soft_wrap=not sys.stdout.isatty())
        self.timings: list[tuple[str, float]] = []

    def elapsed(self) -> float:
        """Seconds since the command was typed."""
        return time.time() - self._started

    def say(self, text: str, style: str = "") -> None:
        """Show one line of progress."""
        line = f"[dim]{self.elapsed():6.1f}s[/dim]  {escape(text)}"
        self._progress.print(f"[{style}]{line}[/{style}]" if style else line)

    def chapter(self, title: str) -> None:
        """Begin a part of the story."""
        self._progress.print()
        self.say(title, style="bold")

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Time a part of the demo for the table at the end; a spinner says on a terminal that it goes on."""
        begun = time.monotonic()
        if self._progress.is_terminal:
            with self._progress.status(escape(what)):
                yield
        else:
            self.say(f"{what} …")
            yield
        seconds = time.monotonic() - begun
        self.timings.append((what, seconds))
        self.say(f"{what}: {seconds:.1f} s", style="green")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Show a table of results."""
        table = Table(title=title, title_justify="left", show_lines=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(cell) for cell in row))
        if not self._results.is_terminal:
            self._results.width = 140
        self._results.print(table)

    def result(self, text: str) -> None:
        """Show one line of result."""
        self._results.print(escape(text))
