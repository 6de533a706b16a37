"""Says whether an audit stream is whole, with public keys alone: the topic, a SIEM's file or any other export.

Each event's number and link (``signatures.audit_chain``) are compared with the signed heads. Below the newest head each
event is proved, from there down, by the checksum that the event above it names. Above it events follow by their links
alone, which whoever writes to the stream can make, too; the report says where that begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from constitution import strict_json
from constitution.audit_head import AuditHead
from constitution.checksum import checksum_of
from constitution.errors import ConstitutionError, UntrustedError
from constitution.model import Model
from constitution.release import Envelope
from constitution.trust.trust_policy import TrustPolicy
from signatures.audit_chain import LINK, verify_head
from signatures.dsse import statement_bytes

MAX_RECORD = 1024 * 1024  # bytes; Kafka takes no larger record from the service

Code = Literal[
    "empty",
    "missing",
    "newest-missing",
    "changed",
    "forged",
    "out-of-order",
    "not-linked",
    "unsigned",
    "head-untrusted",
    "heads-differ",
]


class AuditFinding(Model):
    """What is wrong, from which event to which; 0 where it is about no event."""

    code: Code
    first: int
    last: int
    message: str


class NewestHead(Model):
    """The newest head that verified, and its file or address."""

    sequence: int
    time: datetime
    source: str


class AuditReport(Model):
    """What a stream holds.

    Args:
        environment: whose stream it is, by the trust policy.
        complete: nothing is missing, changed or out of order, as far as ``head`` and links say.
        first: lowest number; 0 when there is no numbered event.
        last: highest number that follows from the head, or the highest of all without one.
        head: the newest of those that were given and verified.
        duplicates: records that repeat another one, byte for byte: the stream is sent at least once.
        unnumbered: records without a number of this environment, of which nothing is said: what the SIEM forwarder
            adds, events from before there were numbers, and anybody's.
        findings: what is wrong; empty when complete.
    """

    environment: str
    complete: bool
    first: int
    last: int
    head: NewestHead | None
    duplicates: int
    unnumbered: int
    findings: tuple[AuditFinding, ...]

    def lines(self) -> list[str]:
        """Return the report for people."""
        lines = [f"complete {_range(self.first, self.last)}"] if self.complete else []
        lines += [finding.message for finding in self.findings]
        if self.head is None:
            lines.append("no head: whether newer events are missing, or the newest was changed, cannot be told")
        elif self.last > self.head.sequence:
            lines.append(f"{_range(self.head.sequence + 1, self.last)} follow by their links; no head names them yet")
        if self.head is not None:
            lines.append(f"head {self.head.sequence} of {_moment(self.head.time)}: {self.head.source}")
        if self.duplicates:
            lines.append(f"{self.duplicates} records repeat others, byte for byte: allowed")
        if self.unnumbered:
            lines.append(f"{self.unnumbered} records have no number of {self.environment}: nothing is said of them")
        return lines


def _range(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}–{last}"  # noqa: RUF001 - a range is written with an en dash


def _moment(time: datetime) -> str:
    return time.isoformat(timespec="seconds")


@dataclass
class AuditVerifier:
    """Reads a stream record by record, then reports. Holds two checksums for each event.

    Args:
        trust: whose service keys sign heads; also names the environment.
        everything_is_signed: the newest head was asked for after the stream was read: the service signs before it
            sends, so an event above that head is not the service's.
    """

    trust: TrustPolicy
    everything_is_signed: bool = False
    _seen: dict[int, dict[str, str | None]] = field(default_factory=dict)  # number -> checksum -> link
    _heads: dict[int, tuple[AuditHead, str]] = field(default_factory=dict)
    _findings: list[AuditFinding] = field(default_factory=list)
    _highest: int = 0
    _late: list[tuple[int, int]] = field(default_factory=list)
    _duplicates: int = 0
    _unnumbered: int = 0

    @property
    def highest(self) -> int:
        """Highest number that was read; 0 before the first."""
        return self._highest

    @property
    def head_sequence(self) -> int:
        """Number of the newest head that verified; 0 without one."""
        return max(self._heads, default=0)

    def add_head(self, envelope: Envelope, source: str) -> None:
        """Take a head from a file or address; one that does not verify becomes a finding."""
        try:
            head = verify_head(envelope, self.trust)
        except UntrustedError as error:
            self._find("head-untrusted", 0, 0, f"head's signature is not valid: {source}: {error.message}")
            return
        there = self._heads.get(head.sequence)
        if there is not None and there[0].hash != head.hash:
            self._differ(head.sequence, f"{there[1]}, {source}")
        self._heads[head.sequence] = (head, source)

    def add(self, record: bytes) -> None:
        """Take the next record, as it comes."""
        try:
            event: Any = strict_json.read(record, max_bytes=MAX_RECORD)
            sequence, details = event["metadata"]["sequence"], event["unmapped"]
            foreign = details["environment"] != self.trust.environment
        except (strict_json.StrictJsonError, KeyError, TypeError):
            foreign, sequence, details = True, None, {}
        if foreign or not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 1:
            self._unnumbered += 1
            return
        try:
            digest = checksum_of(statement_bytes(event))
        except ConstitutionError:
            digest = checksum_of(record)  # it has no RFC 8785 form, so it is not what was sent
        link = details.get(LINK)
        versions = self._seen.setdefault(sequence, {})
        if digest in versions:
            self._duplicates += 1
            return
        if not versions and sequence < self._highest:
            self._late.append((sequence, self._highest))
        versions[digest] = link if isinstance(link, str) else None
        self._highest = max(self._highest, sequence)

    def report(self) -> AuditReport:
        """Return what was found."""
        for sequence, after in self._late:
            self._find("out-of-order", sequence, sequence, f"out of order at {sequence}: it comes after {after}")
        newest = self.head_sequence
        last = self._follow(newest) if newest else self._highest
        if newest:
            self._walk(newest, last)
        elif last:
            self._walk(last, last)
        else:
            self._find("empty", 0, 0, f"nothing to verify: no record has a number of {self.trust.environment}")
        head = self._heads.get(newest)
        return AuditReport(
            environment=self.trust.environment,
            complete=not self._findings,
            first=min(self._seen, default=0),
            last=last,
            head=None if head is None else NewestHead(sequence=newest, time=head[0].time, source=head[1]),
            duplicates=self._duplicates,
            unnumbered=self._unnumbered,
            findings=tuple(self._findings),
        )

    def _follow(self, newest: int) -> int:
        """Return the highest number that follows the newest head without a gap; report what does not follow."""
        last, link = newest, self._heads[newest][0].hash
        above = sorted(sequence for sequence in self._seen if sequence > newest)
        for sequence in above:
            following = [digest for digest, previous in self._seen[sequence].items() if previous == link]
            if sequence != last + 1 or not following:
                self._find(
                    "not-linked",
                    sequence,
                    above[-1],
                    f"{_range(sequence, above[-1])} do not follow {last}: events between are missing or changed, "
                    "or these are forged",
                )
                break
            if len(self._seen[sequence]) > 1:
                self._two(sequence)
            last, link = sequence, following[0]
        if self.everything_is_signed and last > newest:
            message = f"{_range(newest + 1, last)} are not the service's: it has signed no event after {newest}"
            self._find("unsigned", newest + 1, last, message)
        return last if above else min(newest, max(self._seen, default=0))

    def _walk(self, start: int, last: int) -> None:
        """Compare each event, from the newest that is vouched for down to the first, with the link of the one above."""
        wanted: str | None = None
        expected = start
        for sequence in sorted((number for number in self._seen if number <= start), reverse=True):
            if sequence < expected:
                self._missing(sequence + 1, expected, start, last)
                wanted = None
            wanted = self._by_head(sequence, wanted)
            versions = self._seen[sequence]
            if len(versions) > 1:
                self._two(sequence)
            if wanted is None and len(versions) == 1:
                wanted = next(iter(versions.values()))
            elif wanted in versions:
                wanted = versions[wanted]
            else:
                if wanted is not None and len(versions) == 1:
                    self._find("changed", sequence, sequence, f"changed at {sequence}")
                wanted = None
            expected = sequence - 1
        if expected:
            self._missing(1, expected, start, last)

    def _by_head(self, sequence: int, linked: str | None) -> str | None:
        """Return the checksum that an event must have: by its head, else by the link of the event above it."""
        if sequence not in self._heads:
            return linked
        head, source = self._heads[sequence]
        if linked is not None and linked != head.hash:
            self._differ(sequence, source)
        return head.hash

    def _missing(self, first: int, last: int, start: int, highest: int) -> None:
        if last == start and highest < start:
            head = self._heads[start][0]
            self._find(
                "newest-missing",
                first,
                last,
                f"newest events are missing: the head of {_moment(head.time)} names {start}, the last is {first - 1}",
            )
        else:
            self._find("missing", first, last, f"missing {_range(first, last)}")

    def _two(self, sequence: int) -> None:
        self._find(
            "forged", sequence, sequence, f"different events have the number {sequence}: one at most is the service's"
        )

    def _differ(self, sequence: int, sources: str) -> None:
        message = f"signed heads contradict each other at {sequence} ({sources}): two databases have numbered events"
        self._find("heads-differ", sequence, sequence, message)

    def _find(self, code: Code, first: int, last: int, message: str) -> None:
        self._findings.append(AuditFinding(code=code, first=first, last=last, message=message))


def verify_stream(records: Sequence[bytes], heads: Sequence[Envelope], trust: TrustPolicy) -> AuditReport:
    """Return the report of a stream that is in memory.

    Args:
        records: as they come.
        heads: signed.
        trust: as of ``AuditVerifier``.
    """
    verifier = AuditVerifier(trust)
    for number, envelope in enumerate(heads, start=1):
        verifier.add_head(envelope, f"head {number}")
    for record in records:
        verifier.add(record)
    return verifier.report()
