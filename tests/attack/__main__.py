"""``python -m tests.attack``: attack a fresh environment; exit 0 only if nothing changed that nobody signed."""

import asyncio
import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from temporalio.client import Client
from temporalio.contrib.pydantic import pydantic_data_converter

from constitution_client.exit import leave
from deploy.embedded.stack import Stack
from deploy.embedded.stack_directory import CHECKOUT
from tests.attack.campaign import REST, SETTINGS, Report, campaign
from tests.faults.environment import SERVERS
from tests.world.environment import Environments


def say(line: str) -> None:
    """Tell people."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


async def run(acts: int, seed: int, rest: timedelta) -> Report:
    """Attack on servers of its own, which are gone afterwards."""
    directory: Path = CHECKOUT / "var" / f"attack-{os.getpid()}"
    servers = [name for name in SERVERS if name not in {"toxiproxy", "versitygw"}]
    stack = Stack(directory / "servers", servers, environment={}, overrides={})
    await asyncio.to_thread(stack.start)
    try:
        settings = stack.settings()
        client = await Client.connect(settings["TEMPORAL_ADDRESS"], data_converter=pydantic_data_converter)
        environments = Environments(settings, client, directory / "environment", settings=SETTINGS)
        try:
            return await campaign(await environments.running(), acts, seed, say, rest)
        finally:
            await environments.leave()
    finally:
        await asyncio.to_thread(stack.erase)


def main(
    *,
    acts: Annotated[int, typer.Option(help="How many acts.")] = 2000,
    seed: Annotated[int, typer.Option(help="Of every choice.")] = 20261130,
    rest: Annotated[float, typer.Option(help="So many seconds it may take until all is at rest again.")] = (
        REST.total_seconds()
    ),
) -> None:
    """Play somebody who reaches Temporal and has no key."""
    report = asyncio.run(run(acts, seed, timedelta(seconds=rest)))
    for kind, tried in sorted(report.tally.tried.items()):
        answers = sorted((n, text) for (of, text), n in report.tally.answers.items() if of == kind)
        say(f"{tried:5} {kind}: " + ", ".join(f"{n} {text}" for n, text in reversed(answers)))
    sys.stdout.write(
        f"{report.tally.tried.total()} acts, {len(report.findings)} findings;"
        f" a genuine release completed {report.delay_s} s after the last act\n"
    )
    for finding in report.findings:
        sys.stdout.write(f"  {finding}\n")
    leave(1 if report.findings else 0)


if __name__ == "__main__":
    typer.run(main)
