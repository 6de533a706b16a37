"""What the tests of activities share: the worker's configuration, a way to run one, and a wire that can be cut."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.attesting import Attester
from activities.update_plan import UpdatePlan
from adapters.worker_config import WorkerConfig
from constitution.checksum import checksum_of
from constitution.environment import Deadlines, Environment, Strategy, Target
from constitution.policy.document import parse
from constitution.release import Kind
from tests.constitution_service_support import CHECKOUT, ENVIRONMENT, Author, Site

T = TypeVar("T")
X = TypeVar("X")


async def run(activity: Callable[[X], Awaitable[T]], x: X, environment: ActivityEnvironment | None = None) -> T:
    """Run an activity as a worker would, in an environment of its own: heartbeats go nowhere, and nobody cancels."""
    return await (environment or ActivityEnvironment()).run(activity, x)


async def refused(activity: Callable[[X], Awaitable[Any]], x: X) -> ApplicationError:
    """Run an activity that must fail, and return its failure."""
    try:
        answer = await run(activity, x)
    except ApplicationError as error:
        return error
    raise AssertionError(f"it did not fail, but answered {answer!r}")


def make_config(
    site: Site, scratch: Path, *, targets: tuple[Target, ...] = (), gate: Path | None = None, channel: str = "#release"
) -> WorkerConfig:
    """The configuration of a worker in a test's environment, with targets of one's own."""
    environment = Environment.parse(site.environment_file.read_text())
    (site.directory / environment.inbox).mkdir(exist_ok=True)
    return WorkerConfig(
        environment=environment.model_copy(
            update={"targets": targets, "channel": channel, "gate": str(gate or CHECKOUT / "tests")}
        ),
        trust=site.trust,
        directory=site.directory,
        scratch_directory=scratch,
        links={"Temporal UI": "http://127.0.0.1:1/"},
    )


def assessor_of(author: Author, config: WorkerConfig) -> Attester:
    """The assessor's hand: its own keys, and the real service."""
    return Attester(service=author.assessor, config=config, key=author.site.key("assessor"))


def update_plan_of(document: bytes, change_request: str, /, **changes: Any) -> UpdatePlan:
    """The update that `resolve_subject` makes of a document, without asking."""
    said = parse(document)
    return UpdatePlan(
        update_id=str(uuid4()),
        workflow_id="test",
        run_id="run",
        environment=ENVIRONMENT,
        kind=Kind.UPDATE,
        checksum=checksum_of(document),
        version=said.version,
        title=said.title,
        summary=said.summary,
        previous=said.previous,
        effective_at=said.effective_at,
        expires_at=said.expires_at,
        change_request=change_request,
        author="mara",
        reason="the test asks",
        rings=("default",),
        expected_generation=0,
        approvals_needed=2,
        strategy_name="default",
        strategy=Strategy(),
        not_before=None,
        deadlines=Deadlines(),
        channel="#release",
        links={},
    ).model_copy(update=changes)


def now() -> datetime:
    """The time, aware."""
    return datetime.now(UTC)


@dataclass
class Wire:
    """A TCP wire to a real server that can swallow answers: the request arrives, its answer never does.

    Args:
        port: where it listens.
        swallow: answers to requests that contain one of these bytes are swallowed, once each.
        swallowed: how many were.
    """

    port: int = 0
    swallow: list[bytes] = field(default_factory=list)
    swallowed: int = 0


@contextlib.asynccontextmanager
async def wire_to(host: str, port: int) -> AsyncIterator[Wire]:
    """Listen on a loopback port and pass everything on to a server, both ways."""
    wire = Wire()
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        upstream_reader, upstream_writer = await asyncio.open_connection(host, port)
        doomed = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_requests(reader, upstream_writer, wire, doomed))
                group.create_task(_answers(upstream_reader, writer, wire, doomed))
        except* (ConnectionError, EOFError):
            pass
        finally:
            writer.close()
            upstream_writer.close()
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    wire.port = server.sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _requests(
    reader: asyncio.StreamReader, upstream: asyncio.StreamWriter, wire: Wire, doomed: asyncio.Event
) -> None:
    while data := await reader.read(65536):
        for needle in list(wire.swallow):
            if needle in data:
                wire.swallow.remove(needle)
                doomed.set()
        upstream.write(data)
        await upstream.drain()
    raise EOFError


async def _answers(
    upstream: asyncio.StreamReader, writer: asyncio.StreamWriter, wire: Wire, doomed: asyncio.Event
) -> None:
    while data := await upstream.read(65536):
        if doomed.is_set():
            wire.swallowed += 1
            raise EOFError
        writer.write(data)
        await writer.drain()
    raise EOFError


SOON = timedelta(seconds=15)
