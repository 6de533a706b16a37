"""The gate's runner on small gates of its own: what it refuses, what it hides, and that it leaves no process behind."""

import asyncio
import os
import time
from datetime import timedelta
from pathlib import Path

import pytest

from adapters.regression_gate import GateReport, gate_digest, run_gate
from constitution.checksum import checksum_of
from constitution.errors import EvidenceError

DOCUMENT = b'{"draft": true}'

HEAD = """
import os, pathlib, hashlib, subprocess, sys, time
import pytest

@pytest.fixture(scope="session", autouse=True)
def served(record_testsuite_property):
    data = pathlib.Path(os.environ["CONSTITUTION_DRAFT"]).read_bytes()
    record_testsuite_property("served", "sha256:" + hashlib.sha256(data).hexdigest())

"""
GOOD = "def test_good(): assert pathlib.Path(os.environ['CONSTITUTION_DRAFT']).exists()\n"


def make_gate(folder: Path, *, policy: str = GOOD, chaos: str = GOOD, head: str = HEAD) -> Path:
    for name, body in (("policy", policy), ("chaos", chaos)):
        (folder / "gate" / name).mkdir(parents=True)
        (folder / "gate" / name / "test_it.py").write_text(head + body)
    return folder / "gate"


async def run(gate: Path, scratch: Path, *, seconds: float = 30, lines: list[str] | None = None) -> GateReport:
    return await run_gate(
        gate_directory=gate,
        document=DOCUMENT,
        previous=None,
        deadline=timedelta(seconds=seconds),
        heartbeat=(lines if lines is not None else []).append,
        scratch=scratch,
    )


@pytest.mark.parametrize("name", ["scratch", "50% #1 [x]*", "a, b O'Brien ::Zoë"])
async def test_a_passing_gate_is_evidence_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    lines: list[str] = []
    folder = tmp_path / name
    folder.mkdir()
    gate = make_gate(folder)
    report = await run(gate, folder, lines=lines)
    report.require()
    assert report.passed
    assert report.checksum == checksum_of(DOCUMENT)
    assert gate_digest(gate) == report.gate_digest
    assert [(suite.name, suite.tests) for suite in report.suites] == [("policy", 1), ("chaos", 1)]
    assert all(suite.served == (report.checksum,) for suite in report.suites)
    assert all(suite.evidence(checksum_of(suite.junit)).failures == 0 for suite in report.suites)
    assert any("test_good" in line for line in lines)
    assert sorted(path.name for path in gate.parent.iterdir()) == ["gate"], "the run left files behind"


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ("", "gate-empty", "no case"),
        ("def test_bad(): assert 1 == 2, 'one is not two'", "gate-failed", "one is not two"),
        ("@pytest.mark.skip(reason='not today')\ndef test_x(): ...", "gate-skipped", "not today"),
        ("@pytest.mark.xfail\ndef test_x(): assert False", "gate-skipped", ""),
        ("@pytest.mark.xfail\ndef test_x(): assert True", "gate-failed", "XPASS"),
        ("@pytest.fixture\ndef f(): raise OSError('no ground')\ndef test_x(f): ...", "gate-error", "no ground"),
        ("import nothing_of_that_name", "gate-error", "nothing_of_that_name"),
        ("def test_x(): os._exit(0)", "gate-broken", "no results"),
        ("def test_x(): os.kill(os.getpid(), 9)", "gate-broken", "no results"),
    ],
)
@pytest.mark.parametrize("suite", ["policy", pytest.param("chaos", marks=pytest.mark.slow)])
async def test_anything_but_passed_is_refused(tmp_path: Path, suite: str, body: str, code: str, words: str) -> None:
    report = await run(make_gate(tmp_path, **{suite: body}), tmp_path)
    assert not report.passed
    with pytest.raises(EvidenceError) as refused:
        report.require()
    issue = refused.value.issues[0]
    assert issue.code == code
    assert issue.path.startswith(suite)
    assert words in issue.message


async def test_tests_that_looked_at_other_bytes_are_refused(tmp_path: Path) -> None:
    head = HEAD.replace("hashlib.sha256(data)", "hashlib.sha256(data + b' ')")
    report = await run(make_gate(tmp_path, head=head), tmp_path)
    assert [issue.code for issue in report.issues] == ["gate-other-bytes", "gate-other-bytes"]


async def test_the_gate_sees_no_secret_of_the_worker(tmp_path: Path) -> None:
    body = '''
def test_environment():
    allowed = set("""PATH LANG LC_ALL LC_CTYPE TZ TMPDIR HOME MIGRATIONS_DIRECTORY
        GATE_DATABASE_URL GATE_REDIS_URL GATE_SCRATCH
        CONSTITUTION_GATE CONSTITUTION_DRAFT PYTHONPATH PYTHONUNBUFFERED PYTHONDONTWRITEBYTECODE
        PYTEST_DISABLE_PLUGIN_AUTOLOAD PYTEST_CURRENT_TEST PYTEST_VERSION""".split())
    assert set(os.environ) <= allowed, set(os.environ) - allowed
    assert not any(pathlib.Path.home().iterdir())
'''
    os.environ["SLACK_BOT_TOKEN"] = "xoxb-what-the-gate-must-not-see"  # noqa: S105 - no secret but its likeness
    try:
        report = await run(make_gate(tmp_path, policy=body), tmp_path)
    finally:
        del os.environ["SLACK_BOT_TOKEN"]
    report.require()


LINGER = """
def test_slow():
    script = "import os, pathlib, sys, time; os.setsid(); "
    script += "pathlib.Path(sys.argv[1]).write_text(str(os.getpid())); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", script, {target!r}])
    time.sleep(600)
"""


def _alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    except OSError:
        return False


def _written(target: Path) -> int:
    """Wait until the grandchild has said who it is."""
    deadline = time.monotonic() + 20
    while not (target.exists() and target.read_text()):
        assert time.monotonic() < deadline, "the grandchild did not start"
        time.sleep(0.02)
    return int(target.read_text())


async def test_the_deadline_kills_every_descendant(tmp_path: Path) -> None:
    target = tmp_path / "pid"
    report = await run(make_gate(tmp_path, chaos=LINGER.format(target=str(target))), tmp_path, seconds=4)
    assert [(issue.code, issue.path) for issue in report.issues] == [("gate-deadline", "chaos")]
    assert not _alive(await asyncio.to_thread(_written, target)), (
        "a grandchild in a session of its own outlived the gate"
    )


async def test_cancelling_kills_every_descendant(tmp_path: Path) -> None:
    target = tmp_path / "pid"
    running = asyncio.ensure_future(run(make_gate(tmp_path, chaos=LINGER.format(target=str(target))), tmp_path))
    pid = await asyncio.to_thread(_written, target)
    assert _alive(pid)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not _alive(pid)


class TestGateDigest:
    def test_changes_with_any_file_and_with_nothing_else(self, tmp_path: Path) -> None:
        gate = make_gate(tmp_path)
        before = gate_digest(gate)
        (gate / "policy" / "__pycache__").mkdir()
        (gate / "policy" / "__pycache__" / "x.pyc").write_bytes(b"x")
        (gate / "unit").mkdir()
        (gate / "unit" / "test_other.py").write_text("")
        assert gate_digest(gate) == before
        (gate / "policy" / "cases.toml").write_text("")
        assert gate_digest(gate) != before

    def test_refuses_a_link(self, tmp_path: Path) -> None:
        gate = make_gate(tmp_path)
        (gate / "policy" / "test_elsewhere.py").symlink_to("/etc/hostname")
        with pytest.raises(EvidenceError, match="link"):
            gate_digest(gate)

    def test_refuses_a_folder_that_is_no_gate(self, tmp_path: Path) -> None:
        with pytest.raises(EvidenceError, match="no folder 'policy'"):
            gate_digest(tmp_path)
