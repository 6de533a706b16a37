"""``watch``: a group whose default is ``follow``, so that ``constitution watch ID`` needs no second word."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer
from typer.core import TyperGroup

from constitution_client.backtest import backtest
from constitution_client.output import JsonOption
from constitution_client.verbs.runs import TimeoutOption
from constitution_client.verbs.watch_show import show

if TYPE_CHECKING:
    from typer._click import Context


class _DefaultsToFollow(TyperGroup):
    """Reads ``watch X`` as ``watch follow X`` unless X is a subcommand or a request for help."""

    def parse_args(self, ctx: "Context", args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in {"-h", "--help"}:
            args = ["follow", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_DefaultsToFollow,
    no_args_is_help=True,
    help="Follow a run live: constitution watch ID. Other views are subcommands.",
)


@app.callback()
def _watch() -> None:
    """Follow a run live: constitution watch ID. Other views are subcommands."""


app.command("backtest")(backtest)
app.command("show")(show)


@app.command()
def follow(
    run: Annotated[str, typer.Argument(help="A workflow id, or the id of an update's change request (CR-142).")],
    timeout: TimeoutOption = None,
    json: JsonOption = None,
) -> None:
    """Follow a run to its end: what it does, on whom it waits, what to type. Ctrl-C stops nothing but this."""
    raise typer.Exit(asyncio.run(_follow(run, timeout, json)))


async def _follow(run: str, timeout: float | None, json: bool | None) -> int:  # noqa: ASYNC109 - enforced by follow
    from constitution_client.connections import run_named
    from constitution_client.follow import follow as follow_run
    from constitution_client.settings import settings

    _, workflow_id = await run_named(run, settings())
    return await follow_run(workflow_id, timeout=timeout, json=json)
