"""Reads every record of a run and finds one truth: outcome, verdict, watch, who and when.

The records: Temporal (result, search attributes), ``status``, the release's standing, ``show``, the channel, the
legal archive, its change log, and what the SIEM received. None of them is read through the code that wrote it.
"""

import asyncio
import html
import json
import re
from datetime import UTC, datetime
from typing import Any

from temporalio.client import WorkflowHandle
from temporalio.common import SearchAttributeKey

from constitution.messages import Status
from constitution.release import Kind, Release, Standing, StandingRecord
from tests.helpers import eventually
from tests.world.author import Proposal
from tests.world.environment import RunningEnvironment

Handle = WorkflowHandle[Any, Any]
COLUMNS = ("version", "generation", "checksum", "outcome", "change request", "by", "date")
FINAL = {"pending", "done", "failed", "skipped", "undone"}
NOT_TRUE_FOR_EVER = ("is live", "is being", "tried again every", "live again", "has ended")


async def of_completed(env: RunningEnvironment, handle: Handle, proposal: Proposal, release: Release) -> None:
    """A confirmed release has one reason and one verdict, in every record."""
    record = next(r for r in release.standings if r.standing is Standing.CONFIRMED)
    status = await _closed(env, handle, "completed")
    verdict = record.verdict.value if record.verdict else ""
    _never_more_than_happened(record, verdict)
    end = await env.end(handle)
    approvers = ", ".join(release.approvers)
    assert (status.verdict, end.result["verdict"]) == (record.verdict, verdict)
    assert (status.approvers, end.result["approvers"]) == (release.approvers, list(release.approvers))
    assert record.reason in status.outcome_detail
    assert await _attributes(handle) == ("completed", verdict)

    archived = await _outcome(env, release, "completed")
    assert (archived["reason"], archived["verdict"]) == (record.reason, verdict)
    assert archived["approvers"] == list(release.approvers)
    row = await _row(env, str(release.generation), "completed")
    assert row == _expected(release, "completed", approvers, record.recorded_at)

    (told,) = env.reads.told_about(proposal.version, "went live and was confirmed")
    assert record.reason in told
    assert all(person in told for person in release.approvers)

    found = await _siem(env, status.update_id or "", "update.completed")
    assert record.reason in found["message"]
    assert (found["severity"], found["unmapped"]["verdict"]) == ("Informational", verdict)
    assert found["unmapped"]["approvers"] == list(release.approvers)
    assert found["unmapped"]["change_request"] == release.change_request
    await _standing_in_siem(env, release, record, "Informational")
    await _siem_once_a_tenant(env, release, "Informational")
    await _shown(env, release, record)


async def of_undone(env: RunningEnvironment, bad: Release, undoing: Release) -> None:
    """A release that was undone says so with one reason and one verdict, in every record; and so does its undoing."""
    record = bad.standings[-1]
    assert record.standing in (Standing.WITHDRAWN, Standing.POISONED)
    archived = await _outcome(env, bad, "rolled_back")
    assert archived["reason"] == record.reason
    assert archived["verdict"] == (record.verdict.value if record.verdict else None)
    assert (record.standing is Standing.POISONED) == (record.verdict is not None and record.verdict.value == "anomaly")
    row = await _row(env, str(bad.generation), "rolled back")
    assert row["date"] == _moment(record.recorded_at)
    assert row["change request"] == (bad.change_request or "—")
    assert row["by"] == ", ".join(archived["approvers"]) != ""
    made = "restored" if undoing.kind is Kind.ROLLBACK else "withdrawn"
    row = await _row(env, str(undoing.generation), made)
    assert row["date"] == _moment(undoing.standings[-1].recorded_at)

    told = env.reads.told_about(f'"text": "Constitution {bad.version} rolled back', "Reason: ")
    assert len(told) == 1, told
    assert _words(record.reason) in _words(json.loads('"' + told[0].partition("Reason: ")[2].partition('"')[0] + '"'))

    found = await _siem(env, undoing.update_id, "rollback.completed")
    assert (found["severity"], found["unmapped"]["reason"]) == ("High", record.reason)
    assert found["unmapped"]["bad_generation"] == bad.generation
    assert found["unmapped"]["approvers"] == archived["approvers"]
    await _standing_in_siem(env, bad, record, "High")
    await _siem_once_a_tenant(env, undoing, "High")
    await _shown(env, bad, record)


async def of_rejected(
    env: RunningEnvironment, handle: Handle, proposal: Proposal, denied_by: str | None = None
) -> None:
    """A refused update says by whom and why, in every record; a denial is in the legal archive, too."""
    status = await _closed(env, handle, "rejected")
    cause = status.outcome_detail.removeprefix("rejected, nothing live was touched: ")
    (told,) = env.reads.told_about(proposal.version, "rejected")
    assert _words(cause)[:80] in _words(told)
    found = await _siem(env, status.update_id or "", "update.rejected")
    assert (found["severity"], found["status"], found["message"]) == ("Medium", "Failure", cause)
    assert found["unmapped"].get("denied_by") == denied_by
    rows = await asyncio.to_thread(env.reads.change_log_rows)
    mine = [dict(zip(COLUMNS, row, strict=True)) for row in rows if proposal.change_request in row]
    by = f"{denied_by} denied" if denied_by else "—"
    assert (mine[-1]["outcome"], mine[-1]["by"]) == ("rejected", by), "every outcome has its row"
    if denied_by or status.version:
        assert (mine[-1]["version"], mine[-1]["checksum"]) == (proposal.version, proposal.checksum)
    archived = await _json(env, f"docs/legal/constitution/rejected-{status.update_id}/outcome-rejected.json")
    assert (archived.get("denied_by"), archived["reason"]) == (denied_by, cause)
    assert mine[-1]["date"] == _moment(datetime.fromisoformat(archived["at"]))


async def _closed(env: RunningEnvironment, handle: Handle, outcome: str) -> Status:
    """The status of a closed run: final states, and nothing that could become untrue."""
    status = await env.status(handle)
    assert (status.outcome, status.waiting_for, status.next_command) == (outcome, "", "")
    assert {step.state for step in status.steps} <= FINAL
    texts = [status.outcome_detail, *(step.detail for step in status.steps)]
    texts += [
        text for key, said in env.reads.told().items() if key.startswith(status.update_id or "?") for text in said
    ]
    assert [(text, words) for text in texts for words in NOT_TRUE_FOR_EVER if words in text] == []
    return status


def _never_more_than_happened(record: StandingRecord, verdict: str) -> None:
    assert "passed" not in record.reason
    assert ("the watch said ok" in record.reason) == (verdict == "ok")
    assert ("not watched" in record.reason) == (verdict == "not_watched")
    assert ("a first release" in record.reason) == (verdict == "not_applicable")


async def _attributes(handle: Handle) -> tuple[str | None, str | None]:
    found = (await handle.describe()).typed_search_attributes
    outcome, verdict = (SearchAttributeKey.for_keyword(f"Constitution{name}") for name in ("Outcome", "Verdict"))
    return found.get(outcome), found.get(verdict)


async def _json(env: RunningEnvironment, path: str) -> dict[str, Any]:
    data = await asyncio.to_thread(env.reads.archived_file, path)
    found: dict[str, Any] = json.loads(data)
    return found


async def _outcome(env: RunningEnvironment, release: Release, outcome: str) -> dict[str, Any]:
    folder = f"docs/legal/constitution/{release.version or 'withdrawn'}-{release.generation}"
    return await _json(env, f"{folder}/outcome-{outcome}.json")


async def _row(env: RunningEnvironment, generation: str, outcome: str) -> dict[str, str]:
    rows = await asyncio.to_thread(env.reads.change_log_rows)
    (row,) = [row for row in rows if row[1] == generation and row[3] == outcome]
    return dict(zip(COLUMNS, row, strict=True))


def _expected(release: Release, outcome: str, by: str, at: datetime) -> dict[str, str]:
    values = (
        release.version or "none",
        str(release.generation),
        release.checksum or "—",
        outcome,
        release.change_request or "—",
        by,
        _moment(at),
    )
    return dict(zip(COLUMNS, values, strict=True))


def _moment(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _words(text: str) -> str:
    return " ".join(html.unescape(text.replace("\\n", " ")).split())


async def _siem(env: RunningEnvironment, update_id: str, operation: str) -> dict[str, Any]:
    """The one event of an operation that the SIEM received about an update."""

    def received() -> dict[str, Any] | None:
        found = {
            event["metadata"]["uid"]: event
            for event in env.reads.siem()
            if event.get("api", {}).get("operation") == operation
            and event["metadata"].get("correlation_uid") == update_id
        }
        assert len(found) <= 1, found
        return next(iter(found.values()), None)

    found = await eventually(received)
    assert found is not None
    return found


async def _standing_in_siem(env: RunningEnvironment, release: Release, record: StandingRecord, severity: str) -> None:
    def received() -> bool:
        found = {
            event["metadata"]["uid"]: event
            for event in env.reads.siem()
            if event.get("api", {}).get("operation") == "standing.recorded"
            and event["unmapped"]["generation"] == release.generation
            and event["unmapped"]["standing"] == record.standing.value
        }
        assert len(found) <= 1, found
        for event in found.values():
            assert event["severity"] == severity
            assert event["message"].endswith(record.reason[:200]) or record.reason in event["message"]
            assert event["unmapped"]["verdict"] == (record.verdict.value if record.verdict else None)
        return bool(found)

    await eventually(received)


async def _siem_once_a_tenant(env: RunningEnvironment, release: Release, severity: str) -> None:
    """A release is told once for each tenant, and not again as a decision of the service's."""

    def received() -> bool:
        events = [event for event in env.reads.siem() if "api" in event]
        loads = [event for event in events if event["api"]["operation"] == "release.loaded"]
        assert {(event["activity_name"], event["severity"]) for event in loads} == {("release.loaded", "Informational")}
        found = {
            event["metadata"]["uid"]: event
            for event in events
            if event["api"]["operation"] == "constitution.updated"
            and event["unmapped"]["generation"] == release.generation
        }
        assert {event["severity"] for event in found.values()} <= {severity}
        assert len(found) <= len(env.config.tenants)
        return len(found) == len(env.config.tenants)

    await eventually(received)


async def _shown(env: RunningEnvironment, release: Release, record: StandingRecord) -> None:
    code, out, err = await env.constitution("show", str(release.generation), "--text")
    assert code == 0, err
    said = re.sub(r"\s+", " ", out)
    verdict = f", verdict {record.verdict.value}" if record.verdict else ""
    at = record.recorded_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    assert f"{record.standing.value} {at}{verdict}: {_words(record.reason)}" in said, out
