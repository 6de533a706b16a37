"""``python -m tests.faults``: run the matrix, a shard of it, or one cell; exit 0 only if every cell run is green."""

import asyncio
import sys
from typing import Annotated

import typer

from constitution_client.exit import leave
from tests.faults import report
from tests.faults.cells import Cell, find, in_turn, matrix, shard
from tests.faults.environment import ProxiedEnvironments, root
from tests.faults.runner import Result, Runner


def say(line: str) -> None:
    """Tell people."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def run(cells: list[Cell]) -> list[Result]:
    """Run cells on one set of servers, keeping each result as soon as it is there."""
    results = []
    async with ProxiedEnvironments(directory=root(), say=say) as environments:
        runner = Runner(environments)
        for number, cell in enumerate(cells, start=1):
            result = await runner.run(cell)
            report.keep(result)
            results.append(result)
            say(f"{number}/{len(cells)} {told(result)}")
    return results


def told(result: Result) -> str:
    """One line about a result; a red one ends with the command that repeats it."""
    what = " / ".join(result.cell.values())
    line = f"{'green' if result.green else 'RED  '} {result.id} {what}: {result.outcome or 'no outcome'}"
    line += f", recovered in {result.recovery_s} s, {result.seconds} s in all"
    if result.green:
        return line
    found = "\n    ".join(result.findings) or result.error or f"allowed: {', '.join(result.allowed)}; {result.detail}"
    return f"{line}\n    {found}\n    again: {result.command}"


def main(
    *,
    cell: Annotated[list[str] | None, typer.Option(help="Run these cells only, by id.")] = None,
    part: Annotated[str, typer.Option("--shard", help="i/n: the i-th of n parts of the matrix.")] = "1/1",
    limit: Annotated[int, typer.Option(help="At most so many cells; 0: all.")] = 0,
    again: Annotated[bool, typer.Option("--again", help="Also those that are green already.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Show the cells, run none.")] = False,
    page: Annotated[bool, typer.Option("--page", help="Write docs/reliability.md, run none.")] = False,
) -> None:
    """Run the fault matrix; what was green before is not run again."""
    cells = matrix()
    if listing:
        for one in shard(cells, part):
            say(f"{one.id} {' / '.join(value for _, value in one.values())}")
        return
    if page:
        report.write_page(cells)
        return
    if cell:
        chosen = [find(identity) for identity in cell]
    else:
        known = report.load()
        done = {identity for identity, result in known.items() if result["green"]}
        chosen = [one for one in in_turn(shard(cells, part)) if again or one.id not in done]
    results = asyncio.run(run(chosen[: limit or None]))
    red = [result for result in results if not result.green]
    say(f"{len(results)} cells run, {len(red)} red")
    report.write_page(cells)
    leave(1 if red else 0)


if __name__ == "__main__":
    typer.run(main)
