"""The shipped gate on real servers: good constitutions pass it whole, bad drafts are refused for a true reason."""

import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest
import redis

from adapters.regression_gate import GateReport, run_gate
from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.policy.draft import fill
from constitution.release import Previous
from tests.machine import patience
from tests.world.gate import make_gate

TESTS = Path(__file__).parents[1]
DEADLINE = timedelta(seconds=60)  # the longest that a gate may take; on an idle machine it takes about 7

BAD = {
    "allow-by-default": {"test_default_effect_is_not_allow", "test_golden_decision", "test_invariant"},
    "rule-that-never-matches": {"test_golden_decision", "test_rule_decides"},
    "pattern-over-budget": {"test_rule_stays_within_budget"},
    "pattern-behind-a-tool": {"test_rule_stays_within_budget"},
    "spending-limit-lost": {"test_golden_decision", "test_rule_decides", "test_invariant"},
    "error-in-a-rule": {"test_rule_never_errs"},
    "copied-rule": {"test_rule_has_a_case", "test_rule_decides", "test_rule_means_something_of_its_own"},
}
WORDS = {
    "allow-by-default": "default_effect is 'allow'",
    "rule-that-never-matches": "rule 'deny-account-changes' is dead",
    "pattern-over-budget": "rule 'deny-less-oversight', on a prompt of",
    "pattern-behind-a-tool": "rule 'approve-legal-matters', on a prompt of",
    "spending-limit-lost": "spending above the limit never passes without approval: broken by",
    "error-in-a-rule": "rule 'deny-negative-amount' ends in a CEL error",
    "copied-rule": "no case in policy/cases is keyed to rule 'allow-urgent-deploy'",
}


@pytest.fixture
def policy_alone(tmp_path: Path) -> Path:
    """The shipped policy suite; where only rules are wrong, the smallest chaos suite beside it is enough."""
    folder = tmp_path / "gate"
    make_gate(folder)
    shutil.rmtree(folder / "policy")
    shutil.copytree(TESTS / "policy", folder / "policy", ignore=shutil.ignore_patterns("__pycache__"))
    return folder


async def gate(document: bytes, previous: bytes | None, scratch: Path, directory: Path = TESTS) -> GateReport:
    lines: list[str] = []
    return await run_gate(
        gate_directory=directory,
        document=document,
        previous=previous,
        deadline=patience(DEADLINE),
        heartbeat=lines.append,
        scratch=scratch,
    )


def drafted(name: str, version: str, previous: bytes | None) -> bytes:
    now = datetime.now(UTC)
    return fill(
        name,
        version=version,
        environment="development",
        issued_at=now,
        expires_at=now + timedelta(days=365),
        previous=None
        if previous is None
        else Previous(version=parse(previous).version, checksum=checksum_of(previous)),
    )


class TestGoodConstitutions:
    @pytest.mark.slow  # as the next one, on scratch servers, which tests/chaos starts by itself as well
    async def test_a_first_release_passes(self, tmp_path: Path) -> None:
        document = drafted("tool-use", "1.0.0", None)
        report = await gate(document, None, tmp_path)
        report.require()
        assert {suite.name: suite.served for suite in report.suites} == {
            "policy": (checksum_of(document),),
            "chaos": (checksum_of(document),),
        }

    @pytest.mark.slow
    async def test_an_update_of_an_update_passes_and_leaves_named_servers_clean(
        self,
        postgres_settings: dict[str, str],
        redis_url: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        admin = postgres_settings["DATABASE_ADMIN_URL"]
        monkeypatch.setenv("GATE_DATABASE_URL", admin)
        monkeypatch.setenv("GATE_REDIS_URL", redis_url)
        first = drafted("tool-use", "1.0.0", None)
        second = drafted("data-handling", "1.1.0", first)
        document = drafted("escalation", "1.2.0", second)
        report = await gate(document, second, tmp_path)
        report.require()
        assert {suite.name: suite.served for suite in report.suites} == {
            "policy": (checksum_of(document),),
            "chaos": (checksum_of(document),),
        }
        connection = await asyncpg.connect(admin)
        try:
            left = await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'gate_%'")
        finally:
            await connection.close()
        assert left == []
        with redis.Redis.from_url(redis_url) as cache:
            assert cache.keys("gate-*") == []

    @pytest.mark.slow  # tests/policy tries every shipped template, also this one
    async def test_a_mistake_that_only_traffic_shows_passes(self, tmp_path: Path, policy_alone: Path) -> None:
        """`lockdown` refuses most agents of a real fleet; its authors' cases know only numbered ones."""
        first = drafted("tool-use", "1.0.0", None)
        report = await gate(drafted("lockdown", "1.3.0", first), first, tmp_path, policy_alone)
        report.require()


def test_every_bad_draft_has_its_reason() -> None:
    assert {path.stem for path in (TESTS / "drafts").glob("*.json")} == set(BAD) == set(WORDS)


# Each by another suite or for another reason; one shows in every run that a refusal reaches the report.
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name == "allow-by-default" else pytest.mark.slow) for name in sorted(BAD)]
)
async def test_a_bad_draft_is_refused(name: str, tmp_path: Path, policy_alone: Path) -> None:
    document = (TESTS / "drafts" / f"{name}.json").read_bytes()
    parse(document)  # schema and compiler find nothing wrong with it
    report = await gate(document, None, tmp_path, policy_alone)
    assert not report.passed
    paths = [issue.path.removeprefix("policy/") for issue in report.issues if issue.path.startswith("policy/")]
    found = {path.partition("[")[0] for path in paths}
    assert found == BAD[name]
    assert any(WORDS[name] in issue.message for issue in report.issues), [issue.message for issue in report.issues]


@pytest.mark.slow
async def test_a_draft_that_follows_another_document_is_refused(tmp_path: Path, policy_alone: Path) -> None:
    current = drafted("tool-use", "1.0.0", None)
    other = drafted("escalation", "1.0.0", None)
    report = await gate(drafted("data-handling", "1.1.0", other), current, tmp_path, policy_alone)
    assert not report.passed
    assert any("test_follows_the_previous_document" in issue.path for issue in report.issues)


@pytest.mark.slow
async def test_a_draft_that_lifts_a_critical_denial_is_refused(tmp_path: Path) -> None:
    current = drafted("escalation", "1.0.0", None)
    value = json.loads(drafted("escalation", "1.1.0", current))
    value["rules"] = [rule for rule in value["rules"] if rule["id"] != "deny-less-oversight"]
    lifted = json.dumps(value).encode()
    report = await gate(lifted, current, tmp_path)
    assert any("test_critical_denial_is_not_lifted" in issue.path for issue in report.issues)


@pytest.mark.slow
def test_a_failure_elsewhere_is_no_rule_over_its_budget(tmp_path: Path) -> None:
    """The suites also run among all other tests: what failed there must not end the session."""
    before, after = tmp_path / "test_before.py", tmp_path / "test_after.py"
    before.write_text("def test_red():\n    assert False\n")
    after.write_text("def test_green():\n    pass\n")
    budget = TESTS / "policy" / "test_budget.py"
    done = subprocess.run(  # noqa: S603 - fixed program and arguments
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", before, budget, after],
        cwd=TESTS.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "test_red FAILED" in done.stdout
    assert "test_green PASSED" in done.stdout


class TestScratchServers:
    def test_without_packages_and_settings_the_gate_fails_and_says_what_to_do(self, tmp_path: Path) -> None:
        """An interpreter without site-packages has no embedded servers: the module itself needs none."""
        code = f"import sys, pathlib; sys.path.append({str(TESTS)!r}); from chaos.servers import start; "
        code += f"start(pathlib.Path({str(tmp_path)!r}))"
        done = subprocess.run(  # noqa: S603 - fixed program and arguments
            [sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False, timeout=30
        )
        assert done.returncode != 0
        assert "NoScratchServer" in done.stderr
        assert "GATE_REDIS_URL" in done.stderr
