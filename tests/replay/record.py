"""Records closed histories of real runs into `tests/replay/histories`: `python -m tests.replay.record`.

Real servers and processes, and nobody's secrets: what is written holds no key, password, token or folder of the machine
that recorded it (the recorder refuses to write one that does); the host's name is in `identity`, where Temporal
puts it. Nothing is edited after the run. To be run anew when a change of the workflows is meant to break old runs.
"""

import asyncio
import base64
import binascii
import json
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from temporalio.client import Client, WorkflowHandle
from temporalio.contrib.pydantic import pydantic_data_converter

from constitution.messages import Phase
from constitution.trust.approval import BoardDecision
from constitution_client.exit import leave
from deploy.embedded.stack import Stack
from tests.world.environment import LEAF, Environments, RunningEnvironment
from tests.world.files import CHECKOUT

HISTORIES = Path(__file__).parent / "histories"
SERVERS = ("temporal", "postgres", "valkey", "kafka", "slack-emulator", "prometheus")
ARTIFACTS = Path("/var/tmp/constitution-runbook-artifacts")  # noqa: S108 - recorded as the address of each artifact
NAMESPACE = "recorded"

Handle = WorkflowHandle[Any, Any]


class Recorder:
    """Tells a few stories in one environment, and keeps their histories.

    Args:
        env: where they happen.
        forbidden: texts that no history may hold.
    """

    def __init__(self, env: RunningEnvironment, forbidden: tuple[str, ...]) -> None:
        self._env = env
        self._forbidden = forbidden
        self.written: list[str] = []

    async def keep(self, name: str, run: Handle) -> None:
        """Write the history of a closed run.

        Raises:
            ValueError: it holds something that must not be kept.
        """
        history = json.loads((await run.fetch_history()).to_json())
        for text in texts(history):
            found = next((word for word in self._forbidden if word in text), None)
            if found is not None:
                raise ValueError(f"the history {name} holds {found!r} in {text[:300]!r}")
        (HISTORIES / f"{name}.json").write_text(json.dumps(history, indent=1, sort_keys=True) + "\n")
        self.written.append(name)

    async def family(self, name: str, run: Handle) -> None:
        """Write a run and its guard."""
        await self.keep(name, run)
        guard = await self._env.guard_of(run)
        await self._env.end(guard)
        await self.keep(f"{name}-guard", guard)

    async def tell(self) -> None:
        """Tell all stories."""
        await self._withdrawn()
        await self._completed()
        await self._refused()
        await self._rolled_back()
        await self._terminated()
        await self._by_hand()
        await self._held()
        await self._ordered_late()
        await self._records_pending()

    async def _withdrawn(self) -> None:
        """A first release that one target does not obey."""
        env = self._env
        async with env.paused(LEAF):
            run, _ = await env.approved()
            status = await env.until(run, lambda s: s.rollback_workflow is not None)
        await env.end(run)
        await self.family("first-release-rolled-back", run)
        await self.family("withdraw", env.run(status.rollback_workflow or ""))

    async def _completed(self) -> None:
        """A first release and an update, both completed."""
        env = self._env
        for name in ("first-release-completed", "update-completed"):
            run, _ = await env.approved()
            await env.end(run)
            await self.family(name, run)

    async def _refused(self) -> None:
        """Bad input; a dry run; hostile messages, then a denial."""
        env = self._env
        bad = await env.start_run("ConstitutionUpdate", f"{NAMESPACE}/bad-input", {"checksum": 7, "force": True})
        await env.end(bad)
        await self.keep("update-rejected-input", bad)
        dry = await env.update(await env.author.propose(), dry_run=True)
        await env.end(dry)
        await self.keep("update-dry-run", dry)
        proposal = await env.author.propose()
        run = await env.update(proposal)
        status = await env.until_step(run, "board", "waiting")
        hostile: tuple[list[Any], ...] = ([], [{"reason": "x"}, {"reason": "y"}], [[]], [{"reason": ""}])
        for arguments in hostile:
            await run.signal("abort", args=arguments)
        denial = env.author.approval("bruno", proposal, status, decision=BoardDecision.DENY, reason="not this one")
        await env.until(run, lambda s: len(s.refusals) == 4)
        await run.execute_update("decide", {"approval": denial.model_dump(mode="json")})
        await env.end(run)
        await self.family("update-denied", run)

    async def _rolled_back(self) -> None:
        """An update that is aborted in mid-sync, and its rollback."""
        env = self._env
        async with env.paused(LEAF):
            run, _ = await env.approved()
            await env.until_step(run, "sync")
            await env.steer(run, "abort", "a mistake")
            status = await env.until(run, lambda s: s.rollback_workflow is not None)
            await env.go_on(LEAF)
        await env.end(run)
        await self.family("update-rolled-back", run)
        await self.family("rollback", env.run(status.rollback_workflow or ""))

    async def _terminated(self) -> None:
        """An update that is terminated in mid-sync: its guard has it rolled back."""
        env = self._env
        async with env.paused(LEAF):
            run, _ = await env.approved()
            status = await env.until_step(run, "sync")
            await run.terminate("an operator's mistake")
            await env.go_on(LEAF)
        await env.end(await env.guard_of(run))
        await self.family("update-terminated", run)
        await self.keep("rollback-by-guard", env.run(env.rollback_id(status.generation or 0)))

    async def _by_hand(self) -> None:
        """A rollback by hand, and its second start."""
        env = self._env
        await env.completed()
        bad = (await env.live()).generation
        for name in ("rollback-by-hand", "rollback-found-done"):
            run = await env.start_rollback(bad)
            await env.end(run)
            await self.keep(name, run)

    async def _held(self) -> None:
        """An update that two operators' words hold: a resume that nobody signed, then one for each hold."""
        env = self._env
        async with env.paused(LEAF):
            run, _ = await env.approved()
            await env.until_step(run, "sync")
            await env.steer(run, "hold", "let me look")
            await env.steer(run, "hold", "let me look again")
        await env.until_step(run, "watch", "waiting")
        await run.signal("resume", {"reason": "go on"})
        await env.until(run, lambda s: len(s.refusals) == 1)
        for reason in ("looks good", "so it does"):
            await env.steer(run, "resume", reason)
        await env.end(run)
        await self.keep("update-held", run)

    async def _ordered_late(self) -> None:
        """A rollback by hand that waits for an operator's order."""
        env = self._env
        bad = (await env.live()).generation
        run = await env.start_run("ConstitutionRollback", env.rollback_id(bad), {"reason": "found bad"})
        await env.until_step(run, "request", "waiting")
        await env.steer(run, "rollback", "found bad")
        await env.end(run)
        await self.keep("rollback-ordered-late", run)

    async def _records_pending(self) -> None:
        """A completed update that waited for Slack."""
        env = self._env
        proposal = await env.author.propose()
        run = await env.update(proposal)
        with env.service_wire.holding("POST", "/standing") as confirm:
            await env.approve(run, proposal)
            await confirm.reached()
            env.slack_wire.cut()
            confirm.release()
            await env.until(run, lambda s: s.phase is Phase.RECORDS_PENDING)
        env.slack_wire.repair()
        await env.steer(run, "retry")
        await env.end(run)
        await self.keep("update-records-pending", run)


def texts(value: Any) -> Iterator[str]:
    """Every text of a history, payloads decoded."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from (_payload(inner) if name == "data" and isinstance(inner, str) else texts(inner))
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def _payload(data: str) -> Iterator[str]:
    try:
        yield base64.b64decode(data, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        yield data


def forbidden(settings: dict[str, str], *folders: Path) -> tuple[str, ...]:
    """What no history may hold: each password and token of the settings, and these folders."""
    secrets = {urlsplit(value).password for value in settings.values() if "://" in value}
    secrets |= {value for name, value in settings.items() if name.endswith(("_PASSWORD", "_TOKEN"))}
    return tuple(sorted(secret for secret in secrets if secret)) + tuple(str(folder) for folder in folders)


async def record(directory: Path) -> list[str]:
    """Start everything, tell the stories, stop everything; return the names of what was written."""
    HISTORIES.mkdir(exist_ok=True)
    for old in HISTORIES.glob("*.json"):
        old.unlink()
    servers = Stack(directory / "servers", SERVERS, environment={})
    async with servers:
        settings = servers.settings()
        client = await Client.connect(
            settings["TEMPORAL_ADDRESS"], data_converter=pydantic_data_converter, identity="recorder"
        )
        artifacts = {"ARTIFACT_STORE_URL": ARTIFACTS.as_uri()}
        environments = Environments(settings, client, directory / "env", settings=artifacts, namespace=NAMESPACE)
        try:
            env = await environments.running()
            words = forbidden(env.settings, CHECKOUT, directory, Path.home(), Path(sys.prefix))
            recorder = Recorder(env, words)
            await recorder.tell()
            await env.rest()
        finally:
            await environments.leave()
            shutil.rmtree(ARTIFACTS, ignore_errors=True)
    await asyncio.to_thread(servers.erase)
    return recorder.written


def main() -> int:
    """Record; return the exit code."""
    with tempfile.TemporaryDirectory(prefix="constitution-record-") as directory:
        written = asyncio.run(record(Path(directory)))
    sys.stdout.write(f"{len(written)} histories in {HISTORIES.relative_to(CHECKOUT)}\n")
    return 0


if __name__ == "__main__":
    leave(main())
