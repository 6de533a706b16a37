"""JUnit files as pytest writes them, and as somebody who wants a bad draft to pass would."""

import subprocess
import sys
from pathlib import Path

import pytest

from adapters.gate_junit import MAX_JUNIT, UnreadableJUnitError, read_junit

SUITE = """
import pytest

@pytest.fixture(scope="session", autouse=True)
def served(record_testsuite_property):
    record_testsuite_property("served", "sha256:abc")

def test_good():
    assert True

def test_bad():
    assert 1 == 2, "one is not two"

@pytest.mark.skip(reason="not today")
def test_skipped(): ...

@pytest.mark.xfail
def test_expected_to_fail():
    assert False

@pytest.fixture
def broken():
    raise RuntimeError("no ground to stand on")

def test_error(broken): ...
"""


@pytest.fixture(scope="module")
def junit(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("junit")
    (folder / "test_it.py").write_text(SUITE)
    target = folder / "out.xml"
    subprocess.run(  # noqa: S603 - fixed program and arguments
        [sys.executable, "-m", "pytest", str(folder), "-q", "-p", "no:cacheprovider", f"--junit-xml={target}"],
        env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        cwd=folder,
        check=False,
        capture_output=True,
        timeout=60,
    )
    return Path(target).read_bytes()


class TestReadJUnit:
    def test_counts_what_pytest_wrote(self, junit: bytes) -> None:
        result = read_junit(junit)
        assert (result.tests, result.failures, result.errors, result.skipped) == (5, 1, 1, 2)
        assert result.served == ("sha256:abc",)

    def test_names_each_case_and_its_reason(self, junit: bytes) -> None:
        said = {case.case: (case.what, case.message) for case in read_junit(junit).failed}
        assert said["test_bad"][0] == "failed"
        assert "one is not two" in said["test_bad"][1]
        assert said["test_error"][0] == "error"
        assert "no ground to stand on" in said["test_error"][1]
        assert said["test_skipped"] == ("skipped", "not today")
        assert said["test_expected_to_fail"][0] == "skipped"

    @pytest.mark.parametrize(
        ("data", "why"),
        [
            (b"", "cannot be read"),
            (b"<testsuites>", "cannot be read"),
            (b"<other/>", "no test suite"),
            (b'<!DOCTYPE x [<!ENTITY a "aa">]><testsuites><testsuite/></testsuites>', "cannot be read"),
            (b'<testsuites><testsuite failures="x"/></testsuites>', "no number"),
            (b'<testsuites><testsuite failures="1"><testcase name="t"/></testsuite></testsuites>', "total of failures"),
            (b"<testsuites><testsuite><testcase><skipped/></testcase></testsuite></testsuites>", "total of skipped"),
            (b" " * (MAX_JUNIT + 1), "at most"),
        ],
    )
    def test_refuses_what_is_no_honest_result(self, data: bytes, why: str) -> None:
        with pytest.raises(UnreadableJUnitError, match=why):
            read_junit(data)
