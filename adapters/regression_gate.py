"""Runs the regression gate on a draft constitution: ``policy`` and ``chaos`` of the gate's directory, side by side.

What runs is a private copy of the gate, and `gate_digest` is the digest of that copy: nobody can change a test
between the digest and the run. Each suite is ``python -m pytest`` in a process group of its own, with an
environment that is built from nothing: no secret of the worker is in it. At the deadline, on cancellation and at
the end every process that the gate started is killed, grandchildren too.

A gate has passed only if both suites ran at least one case and none failed, broke or was skipped (an expected
failure counts as skipped), and both say that they looked at exactly the draft's bytes.

It decides nothing else: who approves, and what is stored as evidence, is the caller's.
"""

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import rfc8785

import constitution
from adapters.gate_junit import MAX_JUNIT, SERVED, FailedCase, JUnit, UnreadableJUnitError, read_junit
from constitution.api import EvidenceRecord
from constitution.checksum import Checksum, checksum_of
from constitution.errors import EvidenceError, Issue

__all__ = ["SERVED", "SUITES", "FailedCase", "GateReport", "SuiteReport", "gate_digest", "run_gate"]

SUITES = ("policy", "chaos")

# All that a suite gets from the worker's environment. GATE_* name scratch servers for `chaos` alone.
INHERITED = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "MIGRATIONS_DIRECTORY", "GATE_DATABASE_URL", "GATE_REDIS_URL")
# In the environment of every process of one gate run, so that all of them can be found afterwards.
MARKER = "CONSTITUTION_GATE"

_HEARTBEAT = timedelta(seconds=1)  # a silent suite still heartbeats this often
_LINE = 200  # characters of a progress line
_LISTED = 12  # failing cases that are told one by one; the JUnit file has them all
_TAIL = 12  # last lines of a suite that died without results


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport:
    """What one suite found. Counts as in `constitution.api.EvidenceRecord.Suite`; ``junit`` is the file itself."""

    name: str
    tests: int
    failures: int
    errors: int
    skipped: int
    seconds: float
    junit: bytes
    served: tuple[Checksum, ...]
    failed: tuple[FailedCase, ...] = ()

    def evidence(self, junit: Checksum) -> EvidenceRecord.Suite:
        """Return the suite as it goes into the evidence; ``junit`` is where its JUnit file is stored."""
        return EvidenceRecord.Suite(
            name=self.name,
            tests=self.tests,
            failures=self.failures,
            errors=self.errors,
            skipped=self.skipped,
            seconds=self.seconds,
            junit=junit,
            served=self.served,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class GateReport:
    """The gate's whole answer about one draft.

    Args:
        checksum: of the draft's bytes.
        gate_digest: of the tests that ran.
        suites: those that wrote results; both when the gate passed.
        issues: why the gate refuses the draft, in words; empty when it passed.
        seconds: wall time of the whole gate.
    """

    checksum: Checksum
    gate_digest: Checksum
    suites: tuple[SuiteReport, ...]
    issues: tuple[Issue, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether both suites ran and everything in them passed."""
        return not self.issues

    def require(self) -> None:
        """Go on only with a draft that passed.

        Raises:
            EvidenceError: with every failing case (at most `_LISTED` a suite) and its message.
        """
        if self.issues:
            raise EvidenceError(
                f"the regression gate refuses the draft {self.checksum}",
                issues=self.issues,
                hint="correct the draft, or the gate's cases if the change is meant, and start again",
            )


def gate_digest(directory: Path) -> Checksum:
    """Return the digest of the gate in ``directory``: RFC 8785 JSON of each file's relative path and checksum.

    Only ``policy/`` and ``chaos/`` count; byte code and hidden files are left out, as they are not run.

    Raises:
        EvidenceError: a suite's folder is missing, or holds a link (it could lead out of the digest).
    """
    listing = [{"path": str(path.relative_to(directory)), "checksum": checksum_of(path.read_bytes())}
               for path in _files(directory)]  # fmt: skip
    return checksum_of(rfc8785.dumps(listing))


def _files(directory: Path) -> Iterator[Path]:
    for suite in SUITES:
        folder = directory / suite
        if not folder.is_dir():
            raise EvidenceError(
                f"the regression gate's folder {directory} has no folder {suite!r}",
                hint="set `gate` in environment.toml to the folder that holds policy/ and chaos/",
            )
        for path in sorted(folder.rglob("*")):
            parts = path.relative_to(folder).parts
            if any(part.startswith(".") or part == "__pycache__" for part in parts):
                continue
            if path.is_symlink():
                raise EvidenceError(f"the regression gate holds a link, which its digest cannot cover: {path}")
            if path.is_file():
                yield path


def _copy(source: Path, target: Path) -> Checksum:
    for path in _files(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    return gate_digest(target)


class _Suite:
    """One suite as a process group.

    Args:
        name: ``policy`` or ``chaos``.
        scratch: private folder of this gate run; the gate's copy is in ``scratch/gate``.
        environment: the child's whole environment.
        progress: called with one line for people.
    """

    def __init__(self, name: str, scratch: Path, environment: dict[str, str], progress: Callable[[str], None]) -> None:
        self.name = name
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.exit_code: int | None = None
        self._gate = scratch / "gate"
        self._junit = scratch / f"{name}.xml"
        self._environment = environment
        self._progress = progress

    def _argv(self) -> list[str]:
        argv = [
            # Relative to the gate's folder: in a path pytest takes [ for the beginning of a parameter.
            *(sys.executable, "-P", "-m", "pytest", self.name),
            # Nothing of the project that the worker was started in: no ini file, no other conftest, no cache.
            *("-c", os.devnull, "--rootdir", ".", "--confcutdir", self.name),
            *("-p", "no:cacheprovider", "--import-mode=importlib", "--strict-markers", "-o", "xfail_strict=true"),
            *("-v", "--tb=short", "--color=no", f"--junit-xml={os.path.relpath(self._junit, self._gate)}"),
        ]
        setpriv = shutil.which("setpriv")  # util-linux: the kernel kills the suite if the worker dies
        return [setpriv, "--pdeathsig", "KILL", "--", *argv] if setpriv else argv

    async def run(self) -> None:
        """Run to the end; on cancellation kill the group and wait for it."""
        process = await asyncio.create_subprocess_exec(
            *self._argv(),
            cwd=self._gate,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        try:
            assert process.stdout is not None  # noqa: S101 - asked for above; for the type checker
            await self._follow(process.stdout)
            self.exit_code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()

    async def _follow(self, stream: asyncio.StreamReader) -> None:
        while True:
            try:
                line = (await stream.readline()).decode(errors="replace")
            except ValueError:  # longer than the limit; asyncio has dropped it
                continue
            if not line:
                return
            text = line.strip()[:_LINE]
            if text:
                self.tail.append(text)
                self._progress(f"{self.name}: {text}")

    def judge(self, draft: Checksum) -> tuple[SuiteReport | None, tuple[Issue, ...]]:
        """Return the suite's counts (None if it left none) and every reason to refuse the draft."""
        try:
            with self._junit.open("rb") as handle:
                data = handle.read(MAX_JUNIT + 1)
            result = read_junit(data)
        except (OSError, UnreadableJUnitError) as error:
            what = "left no results" if isinstance(error, OSError) else str(error)
            return None, (self._broken(what),)
        report = SuiteReport(
            name=self.name,
            tests=result.tests,
            failures=result.failures,
            errors=result.errors,
            skipped=result.skipped,
            seconds=result.seconds,
            junit=data,
            served=result.served,
            failed=result.failed,
        )
        return report, tuple(self._issues(result, draft))

    def _issues(self, result: JUnit, draft: Checksum) -> Iterator[Issue]:
        if result.tests == 0:
            yield self._issue("gate-empty", "", f"ran no case at all: {' | '.join(self.tail)}")
            return
        for case in result.failed[:_LISTED]:
            yield self._issue(f"gate-{case.what}", case.case, case.message)
        if len(result.failed) > _LISTED:
            more = len(result.failed) - _LISTED
            yield self._issue("gate-failed", "", f"and {more} more; the JUnit file has them all")
        if not result.failed and self.exit_code != 0:
            yield self._broken("passed every case and then broke")
        if not result.failed and result.served != (draft,):
            served = ", ".join(result.served) or "none"
            yield self._issue("gate-other-bytes", "", f"looked at other bytes than the draft {draft}: {served}")

    def _broken(self, what: str) -> Issue:
        return self._issue("gate-broken", "", f"{what} (exit code {self.exit_code}): {' | '.join(self.tail)}")

    def late(self, deadline: timedelta) -> Issue:
        """Say that the suite was killed at the gate's deadline."""
        last = self.tail[-1] if self.tail else "nothing"
        return self._issue("gate-deadline", "", f"did not end within {deadline.total_seconds():g} s; last: {last}")

    def _issue(self, code: str, case: str, message: str) -> Issue:
        return Issue(code=code, path=f"{self.name}/{case}" if case else self.name, message=message)


def _environment(scratch: Path, shared: Path, marker: str, *, previous: bool) -> dict[str, str]:
    environment = {name: os.environ[name] for name in INHERITED if os.environ.get(name)}
    product = Path(next(iter(constitution.__path__))).resolve().parent
    environment |= {
        MARKER: marker,
        "HOME": str(scratch / "home"),
        "PYTHONPATH": str(product),  # the code under test is the very code the worker runs
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "GATE_SCRATCH": str(shared),
        "CONSTITUTION_DRAFT": str(scratch / "draft.json"),
    }
    if previous:
        environment["CONSTITUTION_PREVIOUS"] = str(scratch / "previous.json")
    return environment


def _survivors(marker: str) -> Iterator[int]:
    needle = f"{MARKER}={marker}".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's: not ours
                if needle in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


async def _sweep(marker: str) -> None:
    """Kill every process with the marker until none is left (a child may be born meanwhile)."""
    for _ in range(50):
        found = list(_survivors(marker))
        for pid in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if not found:
            return
        await asyncio.sleep(0.02)


async def _heartbeats(beat: Callable[[str], None], started: float) -> None:
    while True:
        await asyncio.sleep(_HEARTBEAT.total_seconds())
        beat(f"gate: {time.monotonic() - started:.0f} s")


async def _run(suites: dict[str, _Suite]) -> None:
    """Run all suites together; a failed ``policy`` stops the rest: a refused draft needs no more evidence."""
    policy, chaos = (asyncio.ensure_future(suites[name].run()) for name in SUITES)
    try:
        await policy
        if suites["policy"].exit_code == 0:
            await chaos
    finally:
        for task in (policy, chaos):
            task.cancel()
        await asyncio.wait([policy, chaos])


async def _judge(
    suites: dict[str, _Suite], draft: Checksum, deadline: timedelta
) -> tuple[tuple[SuiteReport, ...], tuple[Issue, ...]]:
    try:
        async with asyncio.timeout(deadline.total_seconds()):
            await _run(suites)
    except TimeoutError:
        late = tuple(suite.late(deadline) for suite in suites.values() if suite.exit_code is None)
    else:
        late = ()
    judged = [suite.judge(draft) for suite in suites.values() if suite.exit_code is not None]
    return tuple(report for report, _ in judged if report), (*(i for _, found in judged for i in found), *late)


def _prepare(scratch: Path, gate: Path, document: bytes, previous: bytes | None) -> Checksum:
    digest = _copy(gate, scratch / "gate")
    (scratch / "home").mkdir()
    (scratch / "draft.json").write_bytes(document)
    if previous is not None:
        (scratch / "previous.json").write_bytes(previous)
    return digest


def _open_folder() -> Path:
    """Make the folder of servers that may have to run as another user, as PostgreSQL does for root."""
    folder = Path(tempfile.mkdtemp(prefix="constitution-gate-"))
    folder.chmod(0o711)
    return folder


async def run_gate(
    *,
    gate_directory: Path,
    document: bytes,
    previous: bytes | None,
    deadline: timedelta,
    heartbeat: Callable[[str], None],
    scratch: Path,
) -> GateReport:
    """Run both suites of the gate on ``document`` and say what they found.

    Running it twice is harmless: every run has folders, ports, keys and processes of its own.

    Args:
        gate_directory: holds ``policy/`` and ``chaos/``.
        document: the draft's exact bytes.
        previous: the bytes it would replace; None for a first release.
        deadline: for the whole gate; a longer run is killed, and the draft refused.
        heartbeat: called on the event loop with a line of progress, at least once a second.
        scratch: an existing private folder, where a subfolder is made and removed.

    Raises:
        EvidenceError: the gate's directory is not one.
        asyncio.CancelledError: after everything that was started is dead.
    """
    started = time.monotonic()
    draft = checksum_of(document)
    marker = secrets.token_hex(16)
    own, shared = Path(tempfile.mkdtemp(prefix="gate-", dir=scratch)), _open_folder()
    beats = asyncio.ensure_future(_heartbeats(heartbeat, started))
    try:
        digest = await asyncio.to_thread(_prepare, own, gate_directory, document, previous)
        environment = _environment(own, shared, marker, previous=previous is not None)
        suites = {name: _Suite(name, own, environment, heartbeat) for name in SUITES}
        reports, issues = await _judge(suites, draft, deadline)
    finally:
        beats.cancel()
        await asyncio.shield(_sweep(marker))
        for folder in (own, shared):
            shutil.rmtree(folder, ignore_errors=True)
    return GateReport(
        checksum=draft, gate_digest=digest, suites=reports, issues=issues, seconds=time.monotonic() - started
    )
