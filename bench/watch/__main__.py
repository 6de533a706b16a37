"""``python -m bench.watch --runs 200``: simulate, then write tables and plots into docs/watch.md."""

import os
from pathlib import Path
from typing import Annotated

import typer

from bench.watch.cells import cells
from bench.watch.run import simulate


def main(
    runs: Annotated[int, typer.Option(help="Streams per cell; a multiple of 100.")] = 200,
    processes: Annotated[int, typer.Option(help="Worker processes.")] = os.cpu_count() or 1,
    directory: Annotated[Path, typer.Option(help="Where results are kept, and continued.")] = Path("var/bench/watch"),
    only: Annotated[str, typer.Option(help="Only cells whose key contains this.")] = "",
) -> None:
    """Bring every cell to that many runs, continuing earlier results; then write docs/watch.md from them."""
    simulate([cell for cell in cells() if only in cell.key], runs=runs, directory=directory, processes=processes)


if __name__ == "__main__":
    typer.run(main)
