"""The text forms of releases, documents and runs, line by line."""

from collections.abc import Iterable
from datetime import UTC, datetime

from constitution.messages import Phase, Status
from constitution.release import Release
from constitution_client.output import table

_MARKS = {
    "pending": "·",
    "running": "▸",
    "waiting": "…",
    "done": "✓",
    "failed": "✗",
    "skipped": "-",
    "undone": "↶",
}


def when(moment: datetime | None) -> str:
    """Return a moment as UTC to the second, or ``-``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ") if moment else "-"


def short(checksum: str | None) -> str:
    """Return the first 12 hex digits: enough to recognise, never enough to trust."""
    return checksum[:19] + "…" if checksum else "none"


def release_table(releases: Iterable[Release]) -> list[str]:
    """Return the releases, newest first."""
    rows = [
        (
            release.generation,
            release.kind.value,
            release.version or "-",
            short(release.checksum),
            release.standing.value if release.standing else "unconfirmed",
            when(release.effective_at),
            ", ".join(release.approvers) or "-",
            release.change_request or "-",
        )
        for release in sorted(releases, key=lambda release: release.generation, reverse=True)
    ]
    return table(
        ("gen", "kind", "version", "checksum", "standing", "effective at", "approvers", "change request"), rows
    )


def release_lines(release: Release) -> list[str]:
    """Return all facts of one release."""
    lines = [
        f"generation   {release.generation} ({release.kind.value}) in {release.environment}",
        f"rings        {', '.join(release.rings)}",
        f"version      {release.version or 'none: the constitution was withdrawn'}",
        f"checksum     {release.checksum or 'none'}",
        f"effective at {when(release.effective_at)}",
        f"replaced     {f'generation {release.previous_generation}' if release.previous_generation else 'nothing'}",
        f"approved by  {', '.join(release.approvers) or '-'} for {release.change_request or '-'}",
        f"evidence     {release.evidence or '-'}",
        f"reason       {release.reason}",
        f"update id    {release.update_id}",
    ]
    if release.rollback_of is not None:
        lines.append(f"undoes       generation {release.rollback_of}")
    if run := release.workflow.get("workflow_id"):
        lines.append(f"run          {run} {release.workflow.get('run_id', '')}")
    for record in release.standings:
        verdict = f", verdict {record.verdict.value}" if record.verdict else ""
        lines.append(f"{record.standing.value:12} {when(record.recorded_at)}{verdict}: {record.reason}")
    if not release.standings:
        lines.append("unconfirmed  nothing has been recorded about it yet")
    delivery = release.delivery
    lines.append(f"redis        {when(delivery.redis_at)} {delivery.redis_checksum or ''}".rstrip())
    lines += [
        f"event        {event.tenant}: partition {event.partition}, offset {event.offset}, id {event.event_id}"
        for event in delivery.events
    ]
    lines.append(f"delivered    {when(delivery.delivered_at)}")
    return lines


def status_lines(workflow_id: str, status: Status, troubles: Iterable[str] = ()) -> list[str]:
    """Return what a run is doing, on whom or what it waits, and what to type.

    Args:
        workflow_id: of the run.
        status: as it says itself.
        troubles: the server's words about steps that it tries again by itself.
    """
    lines = [
        f"{workflow_id} ({status.workflow})",
        f"phase        {status.phase.value}" + (f", step {status.step}" if status.step else ""),
    ]
    if status.waiting_for:
        lines.append(f"waiting for  {status.waiting_for}")
    lines += [f"failing      {trouble}" for trouble in troubles]
    lines += _about(status)
    lines += [f"refused      {refusal}" for refusal in status.refusals]
    lines += [step_line(step.state, step.name, step.detail, step.last_error) for step in status.steps]
    if status.verdict:
        lines.append(f"verdict      {status.verdict.value}")
    if status.rollback_workflow:
        lines.append(f"rollback     {status.rollback_workflow}")
    if status.outcome:
        detail = status.outcome_detail.removeprefix(f"{status.outcome.value.replace('_', ' ')}, ")
        lines.append(f"outcome      {status.outcome.value}: {detail}")
    if status.next_command and status.phase is not Phase.CLOSED:
        lines.append(f"next: {status.next_command}")
    return lines


def _about(status: Status) -> list[str]:
    """Return what a run is about: which bytes, for which request, how it is watched, and who has approved."""
    lines = []
    if status.version or status.checksum:
        lines.append(f"version      {status.version or '-'} {status.checksum or ''}".rstrip())
    if status.generation:
        lines.append(f"generation   {status.generation}")
    if status.change_request:
        lines.append(f"request      {status.change_request}, evidence {status.evidence or 'not yet'}")
    if status.strategy:
        lines.append(f"watch        {status.strategy}")
    lines += [f"expected     {line}" for line in status.predicted]
    if status.approvers:
        lines.append(f"approved by  {', '.join(status.approvers)}")
    return lines


def fitted(lines: list[str], width: int, height: int) -> list[str]:
    """Return the lines that fit on a terminal: first steps that lie ahead are left out, then those that are done.

    What is said last (on whom the run waits is in the head, the outcome and what to type next at the end) is kept
    whole, because it is what somebody copies.

    Args:
        lines: of ``status_lines``.
        width: columns.
        height: rows; one is left for the cursor.
    """
    shown = list(lines)
    for mark in (_MARKS["pending"], _MARKS["skipped"], _MARKS["done"]):
        if _rows(shown, width) < height:
            return shown
        dropped = [line for line in shown if line.startswith(f"  {mark} ")]
        if dropped:
            at = shown.index(dropped[0])
            shown = [line for line in shown if line not in dropped]
            shown.insert(at, f"  {mark} {len(dropped)} steps")
    if _rows(shown, width) >= height:
        shown = [*(line[:width] for line in shown[:-1]), shown[-1]]
    while _rows(shown, width) >= height and len(shown) > _HEAD + 1:
        del shown[-2]
    return shown


_HEAD = 3  # run, phase, on whom it waits


def _rows(lines: list[str], width: int) -> int:
    return sum(max(1, -(-len(line) // max(1, width))) for line in lines)


def step_line(state: str, name: str, detail: str, last_error: str | None) -> str:
    """Return one step as a line."""
    # The first line only: the outcome carries every problem, and a step is one line.
    tail = f" [{last_error.splitlines()[0]}]" if last_error and state in {"running", "waiting", "failed"} else ""
    return f"  {_MARKS.get(state, '?')} {name:20} {state}{': ' + detail if detail else ''}{tail}"
