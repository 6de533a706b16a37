"""Set-up, `make up` and one release in a clone of this repository, on machines and in shells that differ.

Each cell has a clone, servers and free ports of its own, and brings all of it down. Only the caches are the person's.
"""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from deploy.embedded.leftovers import marked
from deploy.embedded.postgres import ROOT_STATE, outside
from deploy.embedded.stack_directory import CHECKOUT
from tests.machine import pace

pytestmark = [pytest.mark.environment, pytest.mark.timeout(1200)]

SCRIPT = Path(__file__).with_name("release.sh")
SCRIPT_S = 500
KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_CACHE_HOME", "UV_CACHE_DIR", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")
NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user may pass through and nobody else's files are in."""
    made = Path(tempfile.mkdtemp(prefix="environment-"))
    made.chmod(0o755)
    yield made
    for stack in made.glob("*/var"):
        shutil.rmtree(outside(stack), ignore_errors=True)
    shutil.rmtree(made, ignore_errors=True)


def clone(folder: Path, name: str) -> Path:
    target = folder / name
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", CHECKOUT, target], check=True)  # noqa: S603, S607
    return target


def shell(**given: str) -> dict[str, str]:
    """What the shell of a person has who has set nothing but this."""
    environment = {name: os.environ[name] for name in KEPT if name in os.environ}
    own = str(CHECKOUT / ".venv" / "bin")
    environment["PATH"] = ":".join(part for part in environment["PATH"].split(":") if part != own)
    return environment | given


def release(checkout: Path, environment: Mapping[str, str], *, umask: int = 0o022, user: int | None = None) -> None:
    """Run the script; afterwards 1.0.0 is live, every server answered, and no process is left."""
    with (checkout / "said.txt").open("w") as said:
        if user is not None:
            os.chown(checkout / "said.txt", user, user)
        done = subprocess.run(  # noqa: S603
            ["/bin/bash", str(SCRIPT)], cwd=checkout, env=dict(environment), stdin=subprocess.DEVNULL, stdout=said,
            stderr=subprocess.STDOUT, umask=umask, user=user, group=user, extra_groups=None if user is None else [],
            timeout=SCRIPT_S * pace(), check=False,
        )  # fmt: skip
    told = (checkout / "said.txt").read_text(errors="replace")[-6000:]
    assert done.returncode == 0, told
    assert json.loads((checkout / "current.json").read_text())["version"] == "1.0.0", told
    assert {server["state"] for server in json.loads((checkout / "servers.json").read_text())} == {"running"}, told
    state = json.loads((checkout / "var" / "run" / "state.json").read_text())
    assert not marked(f"{state['stack_id']}:"), told


@pytest.mark.parametrize("name", ["my Zoë", "a, b", "O'Brien", "${HOME}", "50% #1 [x]*"])
def test_in_a_folder_of_any_name(folder: Path, name: str) -> None:
    release(clone(folder, name), shell())
    assert [path.name for path in folder.iterdir()] == [name]  # nothing was written beside it


@pytest.mark.parametrize("umask", [0o077, 0o027])
def test_under_a_closed_umask(folder: Path, umask: int) -> None:
    checkout = clone(folder, "closed")
    release(checkout, shell(), umask=umask)
    release_again(checkout)


def release_again(checkout: Path) -> None:
    """Start and stop once more, under an open umask."""
    for verb in ("up", "down"):
        done = subprocess.run(["make", verb], cwd=checkout, env=shell(), umask=0o022, capture_output=True, check=False)  # noqa: S603, S607
        assert done.returncode == 0, done.stderr.decode()


@AS_ROOT
@pytest.mark.parametrize("home", [None, "/nonexistent", "/proc/nope"])
def test_as_a_user_without_a_home(folder: Path, home: str | None) -> None:
    """Such a user reaches no cache of others: Python of the system, all downloads into the checkout's ``var``."""
    checkout = clone(folder, "homeless")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, NOBODY, NOBODY, follow_symlinks=False)
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin"} | ({} if home is None else {"HOME": home})
    release(checkout, environment, user=NOBODY)
    assert not list(ROOT_STATE.glob("home*"))


def test_with_a_persons_settings_of_uv_and_pip(folder: Path) -> None:
    given = {
        "UV_PROJECT_ENVIRONMENT": str(folder / "elsewhere"),
        "UV_NO_DEV": "1",
        "UV_LOCKED": "1",
        "UV_NO_BUILD": "1",
        "PIP_USER": "1",
        "PIP_REQUIRE_VIRTUALENV": "1",
        "PIP_TARGET": str(folder / "elsewhere"),
        "VIRTUAL_ENV": str(folder / "elsewhere"),
    }
    release(clone(folder, "settings"), shell(**given))
    assert not (folder / "elsewhere").exists()


def test_in_an_ascii_locale(folder: Path) -> None:
    release(clone(folder, "ascii"), shell(LC_ALL="C", LANG="C", PYTHONIOENCODING="ascii"))


def test_with_closed_standard_output(folder: Path) -> None:
    checkout = clone(folder, "closed")
    for verb, code in (("setup", 0), ("up", 0), ("down", 0)):
        script = f"make {verb} >&-"
        done = subprocess.run(["bash", "-c", script], cwd=checkout, env=shell(), capture_output=True, check=False)  # noqa: S603, S607
        assert done.returncode == code, done.stderr.decode()
        assert b"Traceback" not in done.stderr


def test_two_at_once(folder: Path) -> None:
    checkouts = [clone(folder, name) for name in ("one", "two")]
    with ThreadPoolExecutor(len(checkouts)) as pool:
        list(pool.map(lambda checkout: release(checkout, shell()), checkouts))
