"""The README's own commands, as typed, in order, on a fresh copy of the checkout: two releases and a rollback."""

import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.embedded.stack_directory import CHECKOUT
from tests.machine import pace

pytestmark = pytest.mark.timeout(900)

SCRIPT_SECONDS = 600
_BLOCK = re.compile(r"^```bash\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LAST = "make down"
ASKED = "constitution releases --json >releases.json; constitution current --json >current.json"


def blocks() -> list[str]:
    return _BLOCK.findall((CHECKOUT / "README.md").read_text("utf-8"))


@pytest.fixture
def fresh() -> Iterator[Path]:
    """A copy of every file that belongs to the checkout, without what is installed, built or running in it."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - wherever git is
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    ).stdout
    # Not pytest's folder: sockets of the servers have short names.
    with tempfile.TemporaryDirectory(prefix="readme-", ignore_cleanup_errors=True) as scratch:
        copy = Path(scratch) / "constitution-runbook"
        for name in filter(None, listed.decode().split("\0")):
            source = CHECKOUT / name
            if source.is_file():
                (copy / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, copy / name)
        try:
            yield copy
        finally:
            if (copy / "var").exists():
                subprocess.run(["make", "down"], cwd=copy, env=_environment(), check=False, timeout=120)  # noqa: S607


def _environment() -> dict[str, str]:
    """Return what a person's shell has who has set nothing of ours; caches are shared, as a second clone's are."""
    kept = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "UV_CACHE_DIR", "SSL_CERT_FILE")
    own = str(CHECKOUT / ".venv" / "bin")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment["PATH"] = ":".join(part for part in environment["PATH"].split(":") if part != own)
    return environment


@pytest.mark.slow
def test_every_block_of_the_readme_runs_as_typed(fresh: Path) -> None:
    typed = blocks()
    assert len(typed) >= 5
    script = "\n".join(typed)
    assert script.rstrip().endswith(LAST)
    done = subprocess.run(  # noqa: S603 - the README's own words
        ["bash", "-euo", "pipefail", "-c", script.replace(LAST, f"{ASKED}\n{LAST}")],  # noqa: S607
        cwd=fresh,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=SCRIPT_SECONDS * pace(),
    )
    told = f"{done.stdout[-6000:]}\n{done.stderr[-6000:]}"
    assert done.returncode == 0, told
    releases = json.loads((fresh / "releases.json").read_text())
    kinds = [(release["kind"], release["version"]) for release in releases]
    assert sorted(kinds) == [("rollback", "1.0.0"), ("update", "1.0.0"), ("update", "1.1.0")], told
    assert json.loads((fresh / "current.json").read_text())["version"] == "1.0.0"


def test_what_is_marked_to_be_typed_holds_no_placeholder() -> None:
    for block in blocks():
        assert "…" not in block
        assert not re.search(r"<[A-Z]", block)
