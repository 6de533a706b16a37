"""What must be true of each outcome, everywhere it can be read."""

import asyncio
from typing import Any

from temporalio.client import WorkflowHandle

from constitution.messages import Outcome, Phase
from constitution.receipt import RECEIPT, RECEIPT_MANIFEST
from constitution.receipt_story import story
from constitution.release import CurrentConstitution, Kind, Release, Standing
from signatures.receipt_verify import Neighbour, open_receipt, verify_folder
from tests.helpers import eventually
from tests.workflow import truth
from tests.world.author import Proposal
from tests.world.environment import End, RunningEnvironment

Handle = WorkflowHandle[Any, Any]


async def completed(env: RunningEnvironment, handle: Handle, proposal: Proposal) -> Release:
    """The update completed: its document is live, confirmed, told and archived, each once."""
    end = await env.end(handle)
    assert (end.status, end.type) == ("COMPLETED", None), end.message
    assert end.result["outcome"] == Outcome.COMPLETED
    release = await env.service.release(end.result["generation"])
    assert (release.checksum, release.standing) == (proposal.checksum, Standing.CONFIRMED)
    live = await env.live()
    assert (live.generation, live.checksum) == (release.generation, proposal.checksum)
    assert len(env.reads.told_about(proposal.version, "went live and was confirmed")) == 1
    rows = await asyncio.to_thread(env.reads.change_log, release.generation)
    assert [row for row in rows if "completed" in row] == rows
    assert len(rows) == 1
    assert (await env.status(handle)).phase is Phase.CLOSED
    await truth.of_completed(env, handle, proposal, release)
    return release


async def rolled_back(
    env: RunningEnvironment,
    handle: Handle,
    proposal: Proposal,
    before: CurrentConstitution | None,
    standing: Standing = Standing.WITHDRAWN,
) -> tuple[End, Release]:
    """The update was undone: what was live before it is live again, as a new generation; told and archived once."""
    end = await env.end(handle)
    assert (end.status, end.type) == ("FAILED", "RolledBack"), end.message
    return end, await undone(env, proposal, before, standing)


async def undone(
    env: RunningEnvironment,
    proposal: Proposal,
    before: CurrentConstitution | None,
    standing: Standing = Standing.WITHDRAWN,
) -> Release:
    """A proposal that was live is not any more, whoever undid it; return the release that undid it."""
    releases = await env.service.releases()
    bad = next(release for release in releases if release.checksum == proposal.checksum)
    assert bad.standing is standing
    undoing = next(release for release in releases if release.rollback_of == bad.generation)
    assert undoing.kind is (Kind.ROLLBACK if before else Kind.WITHDRAW)
    assert undoing.standing is Standing.CONFIRMED
    current = await env.author.current()
    assert (current.checksum if current else None) == (before.checksum if before else None)
    told = env.reads.told_about(proposal.version, "rolled back")
    assert len(told) == 1, told
    made = "restored" if before else "withdrawn"
    for generation, outcome in ((bad.generation, "rolled back"), (undoing.generation, made)):
        rows = await asyncio.to_thread(env.reads.change_log, generation)
        assert len([row for row in rows if f"| {outcome} |" in row]) == 1, rows
    await truth.of_undone(env, bad, undoing)
    return undoing


async def rejected(
    env: RunningEnvironment,
    handle: Handle,
    proposal: Proposal,
    before: CurrentConstitution | None,
    *words: str,
    denied_by: str | None = None,
) -> End:
    """The update was refused: nothing of it was ever live; told once, and audited."""
    end = await env.end(handle)
    assert (end.status, end.type) == ("FAILED", "Rejected"), end.message
    assert all(word in end.message for word in words), end.message
    await untouched(env, proposal, before)
    assert len(env.reads.told_about(proposal.version, "rejected")) == 1
    audited = await eventually(lambda: env.reads.audited(handle.id))
    assert audited.count("update.rejected") == 1
    await truth.of_rejected(env, handle, proposal, denied_by)
    return end


async def untouched(env: RunningEnvironment, proposal: Proposal, before: CurrentConstitution | None) -> None:
    """Nothing of a proposal was ever live."""
    assert await env.author.current() == before
    assert proposal.checksum not in {release.checksum for release in await env.service.releases()}


async def receipts_verify(env: RunningEnvironment, bad: str, undoing: str) -> None:
    """The folders of a release and of the one that undid it are what their receipts say, with public keys alone."""
    folders = {name: await asyncio.to_thread(env.reads.archived_folder, name) for name in (bad, undoing)}
    beside = {name: Neighbour(name, files[RECEIPT], files[RECEIPT_MANIFEST]) for name, files in folders.items()}
    for name, files in folders.items():
        others = tuple(other for folder, other in beside.items() if folder != name)
        report = await asyncio.to_thread(verify_folder, files, env.files.trust, neighbours=others)
        # Receipts before these two are not given.
        wrong = [line for line in report.lines if not line.ok and "which is not in this archive" not in line.message]
        assert wrong == [], report.text()
        assert any(line.what.startswith("histories/") for line in report.lines), report.text()
    told = "\n".join(story(open_receipt(folders[bad][RECEIPT], (env.files.trust,))))
    assert "It was confirmed on " in told, told
    told = "\n".join(story(open_receipt(folders[undoing][RECEIPT], (env.files.trust,))))
    assert f"It undid generation {bad.rpartition('-')[2]} " in told, told
