"""``python -m tests.faults.load``: a long life in a short time: releases and rollbacks in turn, with faults at random.

Real servers and processes, every connection through a proxy. It is judged from outside: each outcome must be allowed
and true, every event there exactly once, every invariant must hold at the end, and what a process takes (memory, open
files, connections), the outbox, open runs and the length of histories must be flat (`bench/flat.py`).
Exit 0 if all of that is so. The result is kept in var/bench/life.json and told in bench/README.md, also that of a life
that was cut short: with its error, and exit 1.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from typing import Annotated, Any, Final

import asyncpg
import psutil
import typer
from temporalio.client import WorkflowExecutionStatus, WorkflowHandle
from temporalio.service import RPCError

from bench import tables
from bench.flat import WARM, line, longest
from bench.numbers import summary
from bench.results import measuring
from constitution.release import CurrentConstitution, Kind, Standing
from constitution_client.exit import leave
from tests.faults.__main__ import say
from tests.faults.cells import FAULTS, NETWORK, SEED, Cell, allowed
from tests.faults.environment import SERVERS, ProxiedEnvironment, ProxiedEnvironments, root
from tests.faults.faults import Fault
from tests.faults.operators import Operators
from tests.helpers import eventually
from tests.world.author import Proposal

OUTCOME: Final = timedelta(seconds=240)
REST: Final = timedelta(seconds=120)
LATEST_S: Final = 4.0  # after its start, a fault hits a release within this time
LONGEST_S: Final = 3.0
KILLS: Final = 0.1  # of the faults; each one ends a life whose memory is watched
AUDIT_EVERY: Final = 100
MIB: Final = 2**20

# Faults that are over in seconds and hit what a release without a watch uses.
GENTLE: Final = tuple(
    (system, fault)
    for system, faults in FAULTS.items()
    for fault in faults
    if system != "prometheus" and fault in (*NETWORK, "stopped", "locked")
)
KILLING: Final = tuple((system, "killed") for system, faults in FAULTS.items() if "killed" in faults)

# How much a quantity may grow over the whole life and be flat: absolute, and as a part of what it was.
LIMITS: Final = {
    "rss_mib": (8.0, 0.05),
    "open_files": (5.0, 0.0),
    "postgres_connections": (3.0, 0.0),
    "undelivered": (1.0, 0.0),
    "open_runs": (1.0, 0.0),
    "history_update": (0.0, 0.05),
    "history_rollback": (0.0, 0.05),
}
# An allocator keeps what its highest moments needed, of which some come late: what has come to rest in the second half
# is no leak. Nothing else has such an excuse.
WARM_OF: Final = {"rss_mib": 0.5}
WHOLE: Final = ("postgres_connections", "undelivered", "open_runs", "history_update", "history_rollback")


@dataclass(kw_only=True)
class Release:
    """One update or rollback of the life."""

    kind: str
    fault: str | None = None
    outcome: str = ""
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class Sample:
    """What everything took, at rest, after so many releases.

    ``processes``: name -> (process id, MiB resident, open files).
    """

    at: int
    processes: dict[str, tuple[int, float, int]]
    postgres_connections: int
    undelivered: int
    open_runs: int
    history_update: int | None
    history_rollback: int | None


class Life:
    """Makes releases in one environment, one after another.

    Args:
        environments: servers and proxies.
        env: where.
        seed: of the faults.
        faults: how many of the releases are hit.
    """

    def __init__(self, environments: ProxiedEnvironments, env: ProxiedEnvironment, *, seed: int, faults: float) -> None:
        self._environments = environments
        self._env = env
        self._random = random.Random(seed)  # noqa: S311 - a reproducible order, no secret
        self._faults = faults
        self._latest: dict[str, WorkflowHandle[Any, Any]] = {}
        self.releases: list[Release] = []
        self.samples: list[Sample] = []
        self.audits: list[str] = []
        self.retries = 0
        self._asked_before: Counter[str] = Counter()

    async def release(self) -> Release:
        """Make one: a rollback of what an update has put live, else an update."""
        newest = max(await self._env.service.releases(), key=lambda r: r.generation, default=None)
        undo = newest is not None and newest.kind is Kind.UPDATE and newest.standing is Standing.CONFIRMED
        before = await self._env.author.current()
        made = Release(kind="rollback" if undo and before and before.generation > 1 else "update")
        proposal = None if made.kind == "rollback" else await self._env.author.propose()
        cell = self._draw(made.kind)
        made.fault = f"{cell.system} {cell.fault}" if cell else None
        operators = Operators(self._env, proposal)
        began = time.monotonic()
        async with operators.at_work():
            handle = await self._start(proposal, before)
            hit = asyncio.create_task(self._hit(cell, operators))
            try:
                made.outcome = await self._outcome(handle)
                await hit
            finally:
                hit.cancel()
                await asyncio.gather(hit, return_exceptions=True)
            made.seconds = round(time.monotonic() - began, 2)
            await self._at_rest()
        self._latest[made.kind] = handle
        self.retries += operators.said["retry"]
        made.wrong = await self._untrue(made, cell, proposal, before)
        self.releases.append(made)
        return made

    async def _start(self, proposal: Proposal | None, before: CurrentConstitution | None) -> WorkflowHandle[Any, Any]:
        if proposal is not None:
            return await self._env.update(proposal)
        assert before is not None
        return await self._env.start_rollback(before.generation, "life goes on")

    def _draw(self, kind: str) -> Cell | None:
        """Draw a fault; the same number of draws whether there is one or not."""
        some, kill = self._random.random() < self._faults, self._random.random() < KILLS
        system, fault = self._random.choice(KILLING if kill else GENTLE)
        return Cell(kind, "sync", system, fault, "during") if some else None

    async def _hit(self, cell: Cell | None, operators: Operators) -> None:
        delay, lasts = self._random.uniform(0, LATEST_S), self._random.uniform(0.3, LONGEST_S)
        operators.patient = False
        if cell is None:
            return
        fault = Fault(self._environments, self._env, cell)
        await asyncio.sleep(delay)
        operators.patient = True
        try:
            await fault.inject()
            await asyncio.sleep(lasts)
        finally:
            await fault.heal()
            operators.patient = False

    async def _outcome(self, handle: WorkflowHandle[Any, Any]) -> str:
        """Wait until a run has closed; return the outcome that it wrote beside itself."""

        async def said() -> str:
            try:
                described = await handle.describe(rpc_timeout=timedelta(seconds=5))
            except RPCError as error:
                raise AssertionError(str(error)) from error
            assert described.status is not WorkflowExecutionStatus.RUNNING, f"{handle.id} is open"
            found = described.search_attributes.get("ConstitutionOutcome")
            return str(found[0]) if found else f"none ({described.status.name if described.status else ''})"

        return await eventually(said, OUTCOME)

    async def _at_rest(self) -> None:
        async def nothing_open() -> bool:
            try:
                opened = await self._env.run_group()
            except RPCError as error:
                raise AssertionError(str(error)) from error
            assert opened == [], f"open: {opened}"
            return True

        await eventually(nothing_open, REST)

    async def _untrue(
        self, made: Release, cell: Cell | None, proposal: Proposal | None, before: CurrentConstitution | None
    ) -> list[str]:
        """What is wrong about an outcome: not allowed, or not what is live."""
        now = await self._env.author.current()
        live = (now.generation, now.checksum) if now else (0, None)
        was = (before.generation, before.checksum) if before else (0, None)
        wrong = []
        if made.outcome not in _allowed(made.kind, cell):
            wrong.append(f"{made.kind} hit by {made.fault} ended as {made.outcome}")
        true = {
            "completed": proposal is not None and live[1] == proposal.checksum and live[0] > was[0],
            "rejected": live == was,
            "rolled_back": live[0] > was[0] and (live[1] == was[1]) == (proposal is not None),
        }
        if not true.get(made.outcome, False):
            wrong.append(f"{made.kind} says {made.outcome}, but {live} is live after {was}")
        return wrong

    # --- looking

    def slack_calls(self) -> Counter[str]:
        """What our processes asked of Slack, by path, since the life began."""
        return self._env.slack_wire.asked - self._asked_before

    def begins(self) -> None:
        """What was until now is not part of the life."""
        self.releases.clear()
        self._asked_before = self._env.slack_wire.asked

    async def sample(self) -> Sample:
        """Look at everything, at rest."""
        statuses = await asyncio.to_thread(self._env.stack.status)
        statuses += await asyncio.to_thread(self._environments.stack.status)
        processes = {}
        for status in statuses:
            if status.pid is not None:
                process = psutil.Process(status.pid)
                resident = round(process.memory_info().rss / MIB, 2)
                processes[status.name] = (status.pid, resident, process.num_fds())
        connections, undelivered = await self._database()
        lengths = {kind: (await run.describe()).history_length for kind, run in self._latest.items()}
        taken = Sample(
            at=len(self.releases),
            processes=processes,
            postgres_connections=connections,
            undelivered=undelivered,
            open_runs=len(await self._env.run_group()),
            history_update=lengths.get("update"),
            history_rollback=lengths.get("rollback"),
        )
        self.samples.append(taken)
        return taken

    async def _database(self) -> tuple[int, int]:
        """(connections of our processes, outbox rows that are not delivered though a second old)."""
        connection = await asyncpg.connect(self._env.direct["DATABASE_READER_URL"], timeout=10)
        try:
            others = await connection.fetchval(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            undelivered = await connection.fetchval(
                "SELECT count(*) FROM outbox WHERE delivered_at IS NULL AND created_at < now() - interval '1 second'"
            )
        finally:
            await connection.close()
        return int(others), int(undelivered)

    async def audit(self) -> None:
        """Have the auditor look at every system; keep what it finds once nothing changes any more."""
        ends = time.monotonic() + 60
        while True:
            found = [f"{f.invariant}: {f.what}" for f in (await self._env.auditor.audit()).findings]
            if not found or time.monotonic() > ends:
                self.audits += [f"after {len(self.releases)} releases: {what}" for what in found]
                return
            await asyncio.sleep(0.5)

    async def events(self) -> dict[str, int]:
        """Compare the topic with the table of releases."""
        made = await self._env.service.releases()
        tenants = self._env.config.tenants
        expected = {(r.generation, tenant): f"{r.event_id}:{tenant}" for r in made for tenant in tenants}
        found: Counter[tuple[int, str, str]] = Counter()
        for record in await asyncio.to_thread(self._env.reads.updated):
            found[record.value["generation"], record.value["tenant"], record.headers["ce_id"]] += 1
        right = {(generation, tenant, event) for (generation, tenant), event in expected.items()}
        return {
            "expected": len(expected),
            "lost": len(right - set(found)),
            "doubled": len(set(found) - right),  # a second event for one generation and tenant
            "repeated": sum(times - 1 for times in found.values()),  # the same event again: consumers know its id
        }


def _allowed(kind: str, cell: Cell | None) -> frozenset[str]:
    """Outcomes that are right whichever step is hit."""
    if kind == "rollback":
        return frozenset({"rolled_back"})
    return frozenset({"completed"}) if cell is None else allowed(cell)


def lines(samples: list[Sample], releases: int) -> Iterator[dict[str, Any]]:
    """Yield each quantity's line; ``ours`` are judged, other people's servers only shown."""
    names = sorted({name for sample in samples for name in sample.processes})
    for number, what in enumerate(("rss_mib", "open_files"), start=1):
        for name in names:
            seen = [s for s in samples if name in s.processes]
            lived = longest([(s.processes[name][0], s.at, s.processes[name][number]) for s in seen])
            restarts = len({s.processes[name][0] for s in seen}) - 1
            yield from _line(what, name, lived, releases, ours=name not in SERVERS, restarts=restarts)
    for what in WHOLE:
        values = [(float(s.at), float(v)) for s in samples if (v := getattr(s, what)) is not None]
        yield from _line(what, "", values, releases, ours=True, restarts=0)


def _line(
    what: str, name: str, values: list[tuple[float, float]], releases: int, *, ours: bool, restarts: int
) -> Iterator[dict[str, Any]]:
    absolute, part = LIMITS[what]
    limit = max(absolute, part * (values[0][1] if values else 0))
    found = line(values, releases=releases, limit=limit, warm=WARM_OF.get(what, WARM))
    if found is not None:
        yield {"quantity": what, "process": name, "ours": ours, "restarts": restarts, **found.as_json()}


async def live(result: dict[str, Any], *, releases: int, seed: int, every: int, faults: float) -> bool:
    """Live; fill the result; return whether all was well."""
    result |= {"releases": releases, "seed": seed, "every": every, "fault_rate": faults, "error": ""}
    async with ProxiedEnvironments(directory=root(), say=say) as environments:
        life = Life(environments, await environments.fresh(), seed=seed, faults=faults)
        began = time.monotonic()
        try:
            await life.release()  # nothing can be undone before it: it begins the life, and is not part of it
            life.begins()
            began = time.monotonic()
            while len(life.releases) < releases:
                made = await life.release()
                for wrong in made.wrong:
                    say(f"WRONG: {wrong}")
                if len(life.releases) % every == 0:
                    say(_told(life, await life.sample(), releases, time.monotonic() - began))
                if len(life.releases) % AUDIT_EVERY == 0:
                    await life.audit()
        except Exception as stuck:  # noqa: BLE001 - whatever it was, what was seen until then is kept
            result["error"] = _error(f"release {len(life.releases) + 1}", stuck)
        result |= _result(life, (time.monotonic() - began) / 60)
        try:
            await life.audit()
            result |= {"audits": life.audits, "events": await life.events()}
        except Exception as unread:  # noqa: BLE001 - as above
            result["error"] = result["error"] or _error("the last audit", unread)
        if result["error"] or life.audits:
            await environments.leave(keep_logs=True)
    grown = [entry for entry in result["lines"] if entry["ours"] and entry["verdict"] == "grows"]
    events = result["events"]
    bad = (result["error"], life.audits, result["wrong"], grown, events is None or events["lost"] or events["doubled"])
    return not any(bad)


def _error(where: str, error: Exception) -> str:
    told = f"{where}: {type(error).__name__}: {error}"
    say(f"STOPPED: {told}")
    return told


def _result(life: Life, minutes: float) -> dict[str, Any]:
    made = life.releases
    calls = life.slack_calls()
    calm, hit = ([r.seconds for r in made if bool(r.fault) is is_hit] for is_hit in (False, True))
    return {
        "made": len(made),
        "minutes": round(minutes, 2),
        "per_minute": round(len(made) / minutes, 2) if minutes else 0.0,
        "outcomes": dict(Counter(f"{r.kind} {r.outcome}" for r in made)),
        "faults": dict(sorted(Counter(r.fault for r in made if r.fault).items())),
        "seconds": {"calm": summary(calm) if calm else None, "hit": summary(hit) if hit else None},
        "retries": life.retries,
        "wrong": [wrong for r in made for wrong in r.wrong],
        "audits": life.audits,
        "events": None,
        "slack_calls": {path.rpartition("/")[2]: times for path, times in calls.most_common()},
        "lines": list(lines(life.samples, len(made))),
        "samples": [asdict(sample) for sample in life.samples],
    }


def _told(life: Life, sample: Sample, releases: int, seconds: float) -> str:
    worker = sample.processes.get("worker", (0, 0.0, 0))
    service = sample.processes.get("constitution-service", (0, 0.0, 0))
    wrong = sum(len(made.wrong) for made in life.releases)
    return (
        f"{sample.at}/{releases} releases, {60 * sample.at / seconds:.1f} a minute, "
        f"{sum(1 for made in life.releases if made.fault)} hit, {wrong} wrong; "
        f"worker {worker[1]:.0f} MiB {worker[2]} files, "
        f"service {service[1]:.0f} MiB {service[2]} files; {sample.postgres_connections} connections, "
        f"{sample.undelivered} undelivered, history {sample.history_update}, {life.slack_calls().total()} Slack calls"
    )


def main(
    *,
    releases: Annotated[int, typer.Option(min=2, help="Updates and rollbacks, together.")] = 500,
    seed: Annotated[int, typer.Option(help="Of the faults.")] = SEED,
    every: Annotated[int, typer.Option(min=1, help="Look at everything after so many.")] = 10,
    faults: Annotated[float, typer.Option(min=0, max=1, help="How many of the releases are hit.")] = 0.5,
) -> None:
    """Live through many releases and faults; exit 0 if every outcome was right and nothing grew."""
    well = False
    with measuring("life") as result:
        try:
            well = asyncio.run(live(result, releases=releases, seed=seed, every=every, faults=faults))
        except Exception as error:  # noqa: BLE001 - servers that do not start or end: what is known is kept
            result["error"] = result.get("error") or _error("the servers", error)
    if "made" not in result:  # it never lived
        leave(1)
    tables.write()
    grown = [
        f"{e['quantity']} {e['process']}".strip() for e in result["lines"] if e["ours"] and e["verdict"] == "grows"
    ]
    say(
        f"{result['made']} releases in {result['minutes']} min, {result['per_minute']} a minute; "
        f"{len(result['wrong'])} wrong, {len(result['audits'])} found by the auditor, {result['events']}; "
        f"{sum(result['slack_calls'].values())} Slack calls {result['slack_calls']}; "
        f"growing: {', '.join(grown) or 'nothing'}"
    )
    leave(0 if well else 1)


if __name__ == "__main__":
    typer.run(main)
