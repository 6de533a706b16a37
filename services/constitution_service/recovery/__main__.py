"""``python -m services.constitution_service.recovery``: what an operator types after a system was lost.

Runs with the settings of constitution-service. Without ``--apply`` it looks, shows its plan, and changes
nothing. Exit 0: nothing is left to do; 1: something is, or it was refused; 2: a setting is missing; 3: a system does
not answer.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from prometheus_client import CollectorRegistry

from adapters.event_log import TIMEOUT
from adapters.process_settings import read_settings
from constitution.errors import ConstitutionError, TransportError
from services.common.logs import configure_logging
from services.constitution_service.composition import make_context
from services.constitution_service.context import Context
from services.constitution_service.metrics import ServiceMetrics
from services.constitution_service.recovery.apply import carry_out
from services.constitution_service.recovery.plan import Plan, Recovery
from services.constitution_service.recovery.refill import refill_store, resend
from services.constitution_service.settings import ServiceSettings

MODULE = "python -m services.constitution_service.recovery"
EXIT_LEFT, EXIT_SETTINGS, EXIT_UNAVAILABLE = 1, 2, 3

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
Apply = Annotated[bool, typer.Option("--apply", help="Do it; without it, only say what would be done.")]


class RecoverySettings(ServiceSettings):
    """Those of the service; it listens nowhere."""

    port: int = 1


@app.command("releases")
def rebuild(
    *,
    apply: Apply = False,
    lost: Annotated[
        list[int] | None,
        typer.Option("--lost", min=1, help="A generation that was live and of which nothing is left; may be repeated."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Why; audited.")] = "restored from a backup",
) -> None:
    """After PostgreSQL was restored from an older backup: rebuild what it lost, and fence every earlier holder."""

    async def work(context: Context, _kafka: dict[str, str]) -> int:
        declared = frozenset(lost or ())
        plan = await Recovery(context).plan(declared)
        applied = False
        try:
            if apply:
                await carry_out(context, plan, gone=declared, reason=reason)
                applied = True
        finally:
            _say(_plan(plan, applied=applied))  # also what was refused
        done = applied or not (plan.lost or plan.gone or plan.standings)
        return 0 if done else EXIT_LEFT

    raise typer.Exit(_run(work))


@app.command("topic")
def topic(*, apply: Apply = False) -> None:
    """After the topic constitution.updated was lost: send its events again. Stop constitution-service first."""

    async def work(context: Context, kafka: dict[str, str]) -> int:
        done = await resend(context, kafka, apply=apply)
        _say({"applied": apply, "events": done.objects, "next": "" if apply or not done.objects else _again("topic")})
        return 0 if apply or not done.objects else EXIT_LEFT

    raise typer.Exit(_run(work))


@app.command("store")
def store(
    *,
    apply: Apply = False,
    archive: Annotated[
        Path | None, typer.Option("--archive", help="The legal archive's repository, for attachments of evidence.")
    ] = None,
) -> None:
    """After the artifact store was lost: write everything back that PostgreSQL and the legal archive still have."""

    async def work(context: Context, _kafka: dict[str, str]) -> int:
        done = await refill_store(context, archive, apply=apply)
        left = bool(done.lacking) or (done.objects > 0 and not apply)
        _say(
            {
                "applied": apply,
                "objects": done.objects,
                "lacking": list(done.lacking),
                "next": _again("store --archive REPOSITORY") if left else "",
            }
        )
        return EXIT_LEFT if left else 0

    raise typer.Exit(_run(work))


def _plan(plan: Plan, *, applied: bool) -> dict[str, Any]:
    lost = " ".join(f"--lost {generation}" for generation in plan.gone)
    left = plan.lost or plan.gone or plan.standings
    return {
        "applied": applied,
        "known": plan.highest,
        "rebuild": [
            {
                "generation": one.release.generation,
                "kind": one.release.kind.value,
                "version": one.release.version,
                "checksum": one.release.checksum,
                "proved_by": one.where,
            }
            for one in plan.lost
        ],
        "lost": list(plan.gone),
        "standings": [{"generation": one.generation, "standing": one.standing.value} for one in plan.standings],
        "problems": [issue.model_dump() for issue in plan.problems],
        "notes": list(plan.notes),
        "next": "" if applied or not left else _again(f"releases {lost}".strip()),
    }


def _again(arguments: str) -> str:
    return f"{MODULE} {arguments} --apply"


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer, indent=1, ensure_ascii=False) + "\n")


def _run(work: Callable[[Context, dict[str, str]], Awaitable[int]]) -> int:
    try:
        settings = read_settings(RecoverySettings)
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return EXIT_SETTINGS
    configure_logging("recover", "ERROR", sys.stderr)  # standard output is one JSON object
    try:
        return asyncio.run(_with_context(settings, work))
    except ConstitutionError as error:
        sys.stderr.write(error.diagnostics() + "\n")
        return EXIT_UNAVAILABLE if isinstance(error, TransportError) else EXIT_LEFT


async def _with_context(settings: RecoverySettings, work: Callable[[Context, dict[str, str]], Awaitable[int]]) -> int:
    context, redis = make_context(settings, ServiceMetrics(CollectorRegistry()), kafka_wait=TIMEOUT)
    await context.database.open()
    try:
        return await work(context, settings.kafka_client())
    finally:
        await redis.aclose()
        await context.database.close()


if __name__ == "__main__":
    app()
