"""``python -m deploy.installation``, run by ``constitution doctor --deployment``; settings are environment variables.

Exit 0: all is well. 1: something is missing. 3: nothing is, as far as could be told. 2: the settings are wrong.
"""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator
from typing import Annotated

import typer

from adapters.kafka_settings import KafkaSettings
from constitution.errors import ConstitutionError
from constitution_client.exit import leave
from constitution_client.exit_codes import ExitCode
from constitution_client.output import result
from deploy.installation.check import Check, State
from deploy.installation.files import keys, read_environment
from deploy.installation.kafka import kafka
from deploy.installation.postgres import postgres
from deploy.installation.prometheus import prometheus
from deploy.installation.redis import redis
from deploy.installation.services import services
from deploy.installation.settings import InstallationSettings, read
from deploy.installation.store import store
from deploy.installation.temporal import temporal


async def look(settings: InstallationSettings, kafka_settings: KafkaSettings | None) -> list[Check]:
    """Look at everything that the settings name, all at once; in a fixed order."""
    config, found = read_environment(settings)
    if config is not None:
        found += keys(settings, config.trust)
    asked = await asyncio.gather(
        _listed(temporal(settings.names, config.name if config is not None else None)),
        _listed(postgres(settings)),
        kafka(kafka_settings, settings.names),
        _listed(redis(settings)),
        _listed(store(settings)),
        _listed(prometheus(settings, config)),
        _listed(services(settings, config)),
    )
    return [*found, *(check for part in asked for check in part)]


async def _listed(checks: AsyncIterator[Check]) -> list[Check]:
    return [check async for check in checks]


def verdict(found: list[Check]) -> State:
    """Return the worst that was found: what is missing counts more than what could not be told."""
    states = {check.state for check in found}
    return next(state for state in (State.MISSING, State.CANNOT_TELL, State.OK) if state in states)


CODES = {State.OK: ExitCode.OK, State.MISSING: ExitCode.REFUSED, State.CANNOT_TELL: ExitCode.UNAVAILABLE}


def main(*, as_json: Annotated[bool | None, typer.Option("--json/--text")] = None) -> None:
    """Look, print the report, and leave."""
    logging.disable(logging.CRITICAL)  # what the drivers would say is in the report
    try:
        found = asyncio.run(look(*read()))
    except ConstitutionError as error:
        sys.stderr.write(f"error: {error.diagnostics()}\n")
        leave(ExitCode.USAGE)
    state = verdict(found)
    lines = [line for check in found for line in _lines(check)]
    result({"state": state.value, "checks": [check.as_json() for check in found]}, [*lines, _summary(found)], as_json)
    leave(CODES[state])


def _lines(check: Check) -> list[str]:
    line = f"{check.state.value:11}  {check.place}, {check.subject}: {check.detail}"
    return [line, f"{'':11}  next: {check.command}"] if check.command else [line]


def _summary(found: list[Check]) -> str:
    count = {state: sum(check.state is state for check in found) for state in State}
    return ", ".join(f"{number} {state.value}" for state, number in count.items())


if __name__ == "__main__":
    typer.run(main)
