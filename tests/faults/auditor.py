"""The auditor: reads every system by its own driver and says which invariants of docs/architecture.md §6 hold.

It shares no code with activities, adapters or services: what it finds is what somebody finds who came from outside.
It signs nothing, writes nothing, and asks the systems directly, never through the proxies in which faults are made.
"""

import asyncio
import base64
import hashlib
import json
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import asyncpg
import httpx
import redis.asyncio
from confluent_kafka import Consumer, TopicPartition
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from dulwich.objects import Commit
from dulwich.refs import Ref
from dulwich.repo import Repo
from slack_sdk import WebClient
from temporalio.client import Client, WorkflowExecution, WorkflowExecutionStatus, WorkflowHistory
from temporalio.common import SearchAttributeKey

TIMEOUT_S = 15.0
RUNS = ("ConstitutionUpdate", "ConstitutionRollback")
OUTCOME = SearchAttributeKey.for_keyword("ConstitutionOutcome")
UPDATE_ID = SearchAttributeKey.for_keyword("ConstitutionUpdateId")
INVARIANTS = {
    1: "one release everywhere: Postgres, Redis, last event, last statement, every answering target",
    2: "one event id per generation and tenant, in order, none lost",
    3: "releases and standings are append-only, generations have no gap",
    4: "one outcome per run, and it is true",
    5: "only what was signed, approved and tested went live by an update; a rollback restored what was confirmed",
    6: "updates never interleave; the lease is free at rest",
    7: "each outcome told once; each refusal audited; each release archived",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which an invariant does not hold."""

    invariant: int
    what: str


@dataclass(slots=True)
class Audit:
    """What was found; ``checks`` counts comparisons, so that an audit that looked at nothing is noticed."""

    findings: list[Finding] = field(default_factory=list)
    checks: Counter[int] = field(default_factory=Counter)

    def require(self, invariant: int, holds: object, what: str) -> None:
        """Count one comparison, and keep it if it failed."""
        self.checks[invariant] += 1
        if not holds:
            self.findings.append(Finding(invariant, what))


@dataclass(frozen=True, slots=True)
class Run:
    """A closed or open update or rollback, as Temporal lists it."""

    workflow_id: str
    run_id: str
    type: str
    status: str
    outcome: str | None
    update_id: str | None
    failure: str | None


class Auditor:
    """Audits one deployment, again and again: it remembers what was written once and must stay so.

    Args:
        settings: how each system is reached directly (names of stack.env).
        temporal: a client of its own.
    """

    def __init__(self, settings: dict[str, str], temporal: Client) -> None:
        self._settings = settings
        self._temporal = temporal
        self._namespace = settings.get("NAMESPACE", "")
        home = Path(settings["ENVIRONMENT_FILE"])
        self._config = tomllib.loads(home.read_text())
        trust = tomllib.loads((home.parent / self._config.get("trust", "trust/trust.toml")).read_text())
        self._keys = {service["id"]: _public_key(service["public_key"]) for service in trust["services"]}
        self._needed = int(trust["thresholds"]["approval"])
        # Thread -> its number of replies, and (key, ts) of its outcomes: read again when another reply is there.
        self._threads: dict[str, tuple[int, list[tuple[str, str]]]] = {}
        self._written: dict[str, dict[Any, str]] = {"releases": {}, "standings": {}}

    async def audit(self) -> Audit:
        """Read everything once, at rest; what is not so at that moment is a finding.

        Raises:
            Exception: a system does not answer: then nothing can be said about it.
        """
        audit = Audit()
        rows = await self._postgres()
        runs = await self._runs(audit)
        events, audited = await asyncio.gather(
            asyncio.to_thread(self._records, self._name(".", "constitution.updated")),
            asyncio.to_thread(self._records, self._name(".", "constitution.audit")),
        )
        told = await asyncio.to_thread(self._told)
        await self._one_release_everywhere(audit, rows, events)
        self._events_once(audit, rows, events)
        self._append_only(audit, rows)
        self._outcomes_are_true(audit, rows, runs)
        self._rightly_live(audit, rows)
        self._no_interleaving(audit, rows)
        self._told_and_kept(audit, rows, runs, told, audited)
        return audit

    async def never_back(self) -> list[str]:
        """Whether Redis holds the newest release at this very moment, with no time to be put right; what is wrong."""
        async with redis.asyncio.from_url(self._settings["REDIS_URL"], socket_timeout=TIMEOUT_S) as client:
            value = json.loads(await client.get(self._name(":", "constitution:current")) or b"{}")
        newest = max((row["generation"] for row in (await self._postgres())["releases"]), default=0)
        if value.get("generation") == newest:
            return []
        return [f"1: a late write took Redis back from {newest} to {value.get('generation')}"]

    # --- reading

    def _name(self, separator: str, name: str) -> str:
        return f"{self._namespace}{separator}{name}" if self._namespace else name

    async def _postgres(self) -> dict[str, list[dict[str, Any]]]:
        connection = await asyncpg.connect(self._settings["DATABASE_READER_URL"], timeout=TIMEOUT_S)
        tables = {
            "releases": "SELECT *, row_to_json(releases)::text AS whole FROM releases ORDER BY generation",
            "standings": "SELECT *, row_to_json(standings)::text AS whole FROM standings ORDER BY id",
            "current": "SELECT * FROM current_releases",
            "outbox": "SELECT id, stream, event_id, generation, delivered_at FROM outbox ORDER BY id",
            "leases": "SELECT * FROM leases",
            "artifacts": "SELECT checksum, document FROM artifacts",
            "evidence": "SELECT digest, record FROM evidence",
        }
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                return {name: [dict(row) for row in await connection.fetch(text)] for name, text in tables.items()}
        finally:
            await connection.close()

    async def _runs(self, audit: Audit) -> list[Run]:
        queue = self._name("-", "constitution-runbook")
        found = []
        async for run in self._temporal.list_workflows(f"TaskQueue = '{queue}'"):
            if run.workflow_type in (*RUNS, "ConstitutionGuard"):  # reconciliation comes and goes by its schedule
                audit.require(4, run.status is not WorkflowExecutionStatus.RUNNING, f"{run.id} is still open")
            if run.workflow_type not in RUNS:
                continue
            handle = self._temporal.get_workflow_handle(run.id, run_id=run.run_id)
            found.append(_run(run, await handle.fetch_history()))
        return found

    def _records(self, topic: str) -> list[tuple[dict[str, str], dict[str, Any]]]:
        consumer = Consumer(
            {
                "bootstrap.servers": self._settings["KAFKA_BOOTSTRAP_SERVERS"],
                "security.protocol": self._settings["KAFKA_SECURITY_PROTOCOL"],
                "sasl.mechanisms": "PLAIN",
                "sasl.username": self._settings["KAFKA_USERNAME"],
                "sasl.password": self._settings["KAFKA_PASSWORD"],
                "group.id": self._name(".", "fault-auditor"),
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )
        found: list[tuple[dict[str, str], dict[str, Any]]] = []
        try:
            if topic not in consumer.list_topics(timeout=TIMEOUT_S).topics:
                return found
            consumer.assign([TopicPartition(topic, 0, 0)])
            while True:
                message = consumer.poll(TIMEOUT_S)
                if message is None:
                    raise TimeoutError(f"{topic} does not answer")
                if message.error() is not None:
                    return found
                headers = cast("list[tuple[str, bytes]]", message.headers() or [])
                found.append(({name: data.decode() for name, data in headers}, json.loads(message.value() or b"{}")))
        finally:
            consumer.close()

    def _told(self) -> Counter[str]:
        """Outcomes told in the channel: key -> how many messages tell it."""
        client = WebClient(self._settings["SLACK_READER_TOKEN"], base_url=self._settings["SLACK_API_URL"])
        name = self._config["channel"].removeprefix("#")
        pages = client.conversations_list(limit=200)
        channel = next(c["id"] for page in pages for c in page["channels"] if c["name"] == name)
        seen: dict[str, set[str]] = {}
        for page in client.conversations_history(channel=channel, include_all_metadata=True, limit=200):
            for message in page["messages"]:
                replies, ts = message.get("reply_count", 0), message["ts"]
                if replies and self._threads.get(ts, (0, []))[0] != replies:
                    said = client.conversations_replies(channel=channel, ts=ts, include_all_metadata=True)
                    self._threads[ts] = (replies, _outcomes(said["messages"]))
                for key, at in [*_outcomes([message]), *self._threads.get(ts, (0, []))[1]]:
                    seen.setdefault(key, set()).add(at)
        return Counter({key: len(messages) for key, messages in seen.items()})

    def _archived(self) -> set[str]:
        with Repo(self._settings["ARCHIVE_REPOSITORY"]) as repo:
            if b"HEAD" not in repo.refs.allkeys() or not list(repo.refs.subkeys(Ref(b"refs/heads/"))):
                return set()
            commit = repo[repo.head()]
            if not isinstance(commit, Commit):
                return set()
            return {entry.path.decode() for entry in repo.object_store.iter_tree_contents(commit.tree) if entry.path}

    # --- the invariants

    async def _one_release_everywhere(
        self, audit: Audit, rows: dict[str, list[dict[str, Any]]], events: list[tuple[dict[str, str], dict[str, Any]]]
    ) -> None:
        current = {row["ring"]: row["generation"] for row in rows["current"]}
        releases = {row["generation"]: row for row in rows["releases"]}
        if not releases:
            audit.require(1, not events, "events without a release")
            return
        live = releases[current["default"]]
        wanted = (live["generation"], live["checksum"])
        audit.require(1, live["generation"] == max(releases), f"current is {live['generation']} of {max(releases)}")
        async with redis.asyncio.from_url(self._settings["REDIS_URL"], socket_timeout=TIMEOUT_S) as client:
            value = json.loads(await client.get(self._name(":", "constitution:current")) or b"{}")
        audit.require(1, _pair(value) == wanted, f"Redis holds {_pair(value)}, not {wanted}")
        last = events[-1][1] if events else {}
        audit.require(1, _pair(last) == wanted, f"the last event is {_pair(last)}, not {wanted}")
        said = self._statement(audit, live)
        audit.require(1, _pair(said) == wanted, f"the last statement says {_pair(said)}, not {wanted}")
        async with httpx.AsyncClient(timeout=TIMEOUT_S, trust_env=False) as http:
            for target in self._config["targets"]:
                policy = (await http.get(f"{target['url']}/v1/policy")).raise_for_status().json()
                audit.require(1, _pair(policy) == wanted, f"{target['id']} obeys {_pair(policy)}, not {wanted}")

    def _statement(self, audit: Audit, release: dict[str, Any]) -> dict[str, Any]:
        """Verify a release statement as DSSE says, with the pinned keys; return its predicate."""
        envelope = json.loads(release["statement"])
        payload = base64.b64decode(envelope["payload"])
        kind = envelope["payloadType"].encode()
        pae = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
        signature = envelope["signatures"][0]
        try:
            self._keys[signature["keyid"]].verify(base64.b64decode(signature["sig"]), pae)
        except (KeyError, InvalidSignature):
            audit.require(5, False, f"generation {release['generation']}: no pinned key signed its statement")
        predicate: dict[str, Any] = json.loads(payload)["predicate"]
        return predicate

    def _events_once(
        self, audit: Audit, rows: dict[str, list[dict[str, Any]]], events: list[tuple[dict[str, str], dict[str, Any]]]
    ) -> None:
        ids: dict[tuple[int, str], set[str]] = {}
        order: list[int] = []
        for headers, value in events:
            key = (value["generation"], value["tenant"])
            if key not in ids:
                order.append(value["generation"])
            ids.setdefault(key, set()).add(headers["ce_id"])
        wanted = {
            (row["generation"], tenant): {f"{row['event_id']}:{tenant}"}
            for row in rows["releases"]
            for tenant in self._config["tenants"]
        }
        audit.require(2, ids == wanted, f"events {_difference(ids, wanted)}")
        audit.require(2, order == sorted(order), f"generations first seen in the order {order}")
        late = [row["event_id"] for row in rows["outbox"] if row["delivered_at"] is None]
        audit.require(2, not late, f"undelivered at rest: {late[:5]}")

    def _append_only(self, audit: Audit, rows: dict[str, list[dict[str, Any]]]) -> None:
        generations = [row["generation"] for row in rows["releases"]]
        audit.require(3, generations == list(range(1, len(generations) + 1)), f"generations {generations}")
        for table, key in (("releases", "generation"), ("standings", "id")):
            now = {row[key]: hashlib.sha256(row["whole"].encode()).hexdigest() for row in rows[table]}
            before = self._written[table]
            changed = [number for number, digest in before.items() if now.get(number) != digest]
            audit.require(3, not changed, f"{table} {changed} were changed or lost")
            self._written[table] = now

    def _outcomes_are_true(self, audit: Audit, rows: dict[str, list[dict[str, Any]]], runs: list[Run]) -> None:
        for run in runs:
            if run.status == "RUNNING":
                continue
            self._outcome_is_true(audit, rows, run)

    def _outcome_is_true(self, audit: Audit, rows: dict[str, list[dict[str, Any]]], run: Run) -> None:
        name = f"{run.workflow_id} ({run.status}, {run.outcome})"
        if run.status in ("TERMINATED", "CANCELED"):
            return  # no outcome of its own: its guard's, which the state of the release shows
        closed = {"completed": ("COMPLETED", None), "rejected": ("FAILED", "Rejected")}
        closed["rolled_back"] = ("COMPLETED", None) if "Rollback" in run.type else ("FAILED", "RolledBack")
        audit.require(4, run.outcome in closed, f"{name} has no outcome of ours")
        if run.outcome is None or run.outcome not in closed:
            return
        audit.require(4, (run.status, run.failure) == closed[run.outcome], f"{name} failed as {run.failure}")
        if run.type != "ConstitutionUpdate":
            return
        own = [r for r in rows["releases"] if str(r["update_id"]) == run.update_id and r["kind"] == "update"]
        standings = [s["standing"] for r in own for s in rows["standings"] if s["generation"] == r["generation"]]
        first = standings[:1]
        match run.outcome:
            case "rejected":
                audit.require(4, not own, f"{name} published generation {[r['generation'] for r in own]}")
            case "completed":
                audit.require(4, len(own) == 1 and first == ["confirmed"], f"{name}: {len(own)} releases, {standings}")
            case _:
                undone = len(own) == 1 and first in (["withdrawn"], ["poisoned"])
                restored = [r for r in rows["releases"] if own and r["rollback_of"] == own[0]["generation"]]
                audit.require(4, undone, f"{name}: {len(own)} releases, {standings}")
                audit.require(4, len(restored) == 1, f"{name}: undone by {len(restored)} releases")

    def _rightly_live(self, audit: Audit, rows: dict[str, list[dict[str, Any]]]) -> None:
        documents = {row["checksum"]: bytes(row["document"]) for row in rows["artifacts"]}
        evidence = {row["digest"] for row in rows["evidence"]}
        releases = {row["generation"]: row for row in rows["releases"]}
        confirmed: set[str | None] = set()
        versions: list[tuple[int, ...]] = []
        by_generation = {s["generation"]: s["standing"] for s in reversed(rows["standings"])}
        for generation, row in releases.items():
            name = f"generation {generation} ({row['kind']})"
            said = self._statement(audit, row)
            audit.require(5, _pair(said) == (generation, row["checksum"]), f"{name}: its statement says {_pair(said)}")
            if row["checksum"] is not None:
                digest = "sha256:" + hashlib.sha256(documents[row["checksum"]]).hexdigest()
                audit.require(5, digest == row["checksum"], f"{name}: its bytes are {digest}")
                audit.require(5, row["signatures"], f"{name}: nobody signed it")
            if row["kind"] == "update":
                audit.require(5, len(set(row["approvers"])) >= self._needed, f"{name}: approved by {row['approvers']}")
                audit.require(5, row["evidence"] in evidence, f"{name}: no evidence of its tests")
                version = tuple(int(part) for part in row["version"].split("."))
                audit.require(5, all(version > earlier for earlier in versions), f"{name}: {row['version']} is older")
                versions.append(version)
            elif row["kind"] == "rollback":
                audit.require(5, row["checksum"] in confirmed, f"{name}: what it restores was never confirmed")
            if by_generation.get(generation) == "confirmed":
                confirmed.add(row["checksum"])

    def _no_interleaving(self, audit: Audit, rows: dict[str, list[dict[str, Any]]]) -> None:
        for lease in rows["leases"]:
            audit.require(6, lease["update_id"] is None, f"the lease is held by {lease['workflow_id']} at rest")
        first = {s["generation"]: s["recorded_at"] for s in reversed(rows["standings"])}
        for before, after in zip(rows["releases"], rows["releases"][1:], strict=False):
            settled = first.get(before["generation"])
            undoes = after["rollback_of"] == before["generation"]
            in_turn = undoes or (settled is not None and settled <= after["effective_at"])
            what = f"generation {after['generation']} came before {before['generation']} had a standing"
            audit.require(6, in_turn, what)
        for row in rows["releases"]:
            audit.require(6, row["generation"] in first, f"generation {row['generation']} has no standing at rest")

    def _told_and_kept(
        self,
        audit: Audit,
        rows: dict[str, list[dict[str, Any]]],
        runs: list[Run],
        told: Counter[str],
        audited: list[tuple[dict[str, str], dict[str, Any]]],
    ) -> None:
        environment = self._config["environment"]
        twice = [key for key, times in told.items() if times != 1]
        audit.require(7, not twice, f"told more than once: {twice}")
        refused = {
            event["unmapped"].get("workflow", {}).get("run_id")
            for _, event in audited
            if event.get("api", {}).get("operation", "").endswith(".rejected")
        }
        for run in runs:
            if run.outcome in ("completed", "rejected") and run.status != "RUNNING":
                owner = run.update_id if run.type == "ConstitutionUpdate" else run.run_id
                audit.require(7, told[f"{owner}/{run.outcome}"] == 1, f"{run.workflow_id}: {run.outcome} was not told")
            if run.outcome == "rejected":
                audit.require(7, run.run_id in refused, f"{run.workflow_id}: its refusal is not in the audit stream")
        for row in rows["releases"]:
            if row["rollback_of"] is not None:
                key = f"{environment}/{row['rollback_of']}/rolled_back"
                audit.require(7, told[key] == 1, f"the rollback of generation {row['rollback_of']} was not told")
        archived = self._archived()
        for row in rows["releases"]:
            ending = f"-{row['generation']}/manifest.json"
            kept = any(path.endswith(ending) for path in archived)
            audit.require(7, kept, f"generation {row['generation']} is not in the archive")


def _run(run: WorkflowExecution, history: WorkflowHistory) -> Run:
    last = history.events[-1]
    failed = last.workflow_execution_failed_event_attributes
    info = failed.failure.application_failure_info
    return Run(
        workflow_id=run.id,
        run_id=run.run_id,
        type=run.workflow_type,
        status=run.status.name if run.status else "",
        outcome=run.typed_search_attributes.get(OUTCOME),
        update_id=run.typed_search_attributes.get(UPDATE_ID),
        failure=info.type or None,
    )


def _outcomes(messages: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return (key, ts) of the messages that tell an outcome; a progress message tells none."""
    keys = [((said.get("metadata") or {}).get("event_payload", {}).get("key", ""), said["ts"]) for said in messages]
    return [(key, ts) for key, ts in keys if key and not key.endswith("/progress")]


def _pair(said: dict[str, Any]) -> tuple[Any, Any]:
    return said.get("generation"), said.get("checksum")


def _difference(found: dict[Any, set[str]], wanted: dict[Any, set[str]]) -> str:
    lost = [key for key in wanted if key not in found]
    more = [key for key in found if key not in wanted]
    other = [key for key in found if key in wanted and found[key] != wanted[key]]
    return f"lost {lost}, unknown {more}, with other ids {other}"


def _public_key(text: str) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
