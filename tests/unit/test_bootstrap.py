"""The bootstrap takes the package index from the user's configuration, and checks the digest that it announces."""

import hashlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.embedded.stack_directory import CHECKOUT

WHEEL = b"the bytes of a wheel"
DIGEST = hashlib.sha256(WHEEL).hexdigest()


def bootstrap(expression: str, home: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Evaluate an expression in a fresh interpreter whose only configuration is what is given."""
    program = f"import deploy.bootstrap as b, pathlib; print({expression})"
    clean = {"PATH": os.defpath, "HOME": str(home), "XDG_CONFIG_DIRS": str(home), "PYTHONPATH": str(CHECKOUT)}
    return subprocess.run(  # noqa: S603
        [sys.executable, "-c", program], env=clean | environment, capture_output=True, text=True, check=False
    )


class TestConfiguredIndex:
    def test_pips_own_environment_variable_comes_first(self, tmp_path: Path) -> None:
        done = bootstrap("b.configured_index()", tmp_path, PIP_INDEX_URL="http://one/simple", UV_INDEX_URL="http://two")
        assert done.stdout.strip() == "http://one/simple"

    def test_the_users_file_wins_over_the_machines(self, tmp_path: Path) -> None:
        for folder, index in (("pip", "http://machine/simple"), (".config/pip", "http://user/simple")):
            (tmp_path / folder).mkdir(parents=True)
            (tmp_path / folder / "pip.conf").write_text(f"[global]\nindex-url = {index}\n")
        assert bootstrap("b.configured_index()", tmp_path).stdout.strip() == "http://user/simple"

    def test_no_configuration_names_no_index(self, tmp_path: Path) -> None:
        empty = tmp_path / "empty.conf"
        empty.write_text("")
        done = bootstrap("b.configured_index()", tmp_path, PIP_CONFIG_FILE=str(empty))
        assert done.stdout.strip() == (_machine_wide() or "None")


class TestHome:
    def test_a_home_that_can_be_written_is_used(self, tmp_path: Path) -> None:
        assert bootstrap("b.home()", tmp_path).stdout.strip() == str(tmp_path)
        assert bootstrap("b.cache_directory()", tmp_path).stdout.strip() == f"{tmp_path}/.cache/constitution-runbook"

    @pytest.mark.parametrize("home", ["/proc/nope", "relative", "/dev/null"])
    def test_where_there_is_none_the_checkout_has_one(self, home: str) -> None:
        assert bootstrap("b.home()", Path(home)).stdout.strip() == f"{CHECKOUT}/var/home"
        done = bootstrap("b.cache_directory()", Path(home))
        assert done.stdout.strip() == f"{CHECKOUT}/var/home/.cache/constitution-runbook"

    def test_a_cache_that_is_given_is_used(self, tmp_path: Path) -> None:
        done = bootstrap("b.cache_directory()", Path("/proc/nope"), XDG_CACHE_HOME=str(tmp_path))
        assert done.stdout.strip() == f"{tmp_path}/constitution-runbook"

    def test_a_cache_that_is_given_and_cannot_be_written_is_refused_in_a_line(self) -> None:
        command = [sys.executable, str(CHECKOUT / "deploy" / "bootstrap.py"), "--version"]
        environment = {"PATH": "/nowhere", "HOME": "/proc/nope", "XDG_CACHE_HOME": "/proc/nope"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
        line = "error: /proc/nope/constitution-runbook cannot be written; set XDG_CACHE_HOME to a folder that can be"
        assert (done.returncode, done.stderr.splitlines()) == (1, [line])


class TestSettingsOfAPerson:
    def test_sources_and_network_hold(self, tmp_path: Path) -> None:
        kept = {
            "UV_INDEX_COMPANY_PASSWORD": "p",
            "UV_DEFAULT_INDEX": "http://one",
            "UV_CACHE_DIR": "/c",
            "UV_HTTP_TIMEOUT": "9",
            "UV_SYSTEM_CERTS": "true",
            "UV_PYTHON": "3.12",
            "PIP_INDEX_URL": "http://two",
            "PIP_CERT": "/ca",
            "PIPX_HOME": "/p",
        }
        given = bootstrap("sorted(b.tools_environment(b.os.environ).items())", tmp_path, **kept).stdout
        assert [pair for pair in kept.items() if repr(pair) not in given] == []

    def test_what_would_put_packages_elsewhere_or_others_in_their_place_is_set_aside(self, tmp_path: Path) -> None:
        aside = {
            "UV_PROJECT_ENVIRONMENT": "/elsewhere",
            "UV_PROJECT": "/other",
            "UV_NO_DEV": "1",
            "UV_NO_BUILD": "1",
            "UV_LOCKED": "1",
            "UV_CONSTRAINT": "/c.txt",
            "UV_WORKING_DIRECTORY": "/",
            "PIP_USER": "1",
            "PIP_REQUIRE_VIRTUALENV": "1",
            "PIP_TARGET": "/t",
            "PIP_NO_BINARY": ":all:",
        }
        given = bootstrap("sorted(b.tools_environment(b.os.environ))", tmp_path, **aside).stdout
        assert [name for name in aside if name in given] == []


def _machine_wide() -> str | None:
    file = Path("/etc/pip.conf")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition("=")[2].strip() for line in lines if line.strip().startswith("index-url")), None)


class Index(BaseHTTPRequestHandler):
    """A simple index (PEP 503) with the links of its server."""

    server: "IndexServer"

    def do_GET(self) -> None:
        page = "".join(f'<a href="{href}" {more}>pip</a>' for href, more in self.server.links).encode()
        body = page if self.path == "/simple/pip/" else WHEEL
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class IndexServer(ThreadingHTTPServer):
    links: tuple[tuple[str, str], ...] = ()


@pytest.fixture
def index() -> Iterator[IndexServer]:
    with IndexServer(("127.0.0.1", 0), Index) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class TestWheelOfPip:
    def fetch(self, index: IndexServer, tmp_path: Path) -> "subprocess.CompletedProcess[str]":
        expression = f"b._wheel_from_configured_index(pathlib.Path({str(tmp_path)!r})).name"
        address = f"http://127.0.0.1:{index.server_port}/simple"
        return bootstrap(expression, tmp_path, PIP_INDEX_URL=address, no_proxy="127.0.0.1")

    def test_the_newest_release_that_is_not_yanked_is_taken(self, index: IndexServer, tmp_path: Path) -> None:
        index.links = (
            (f"../../pip-9.0-py3-none-any.whl#sha256={DIGEST}", ""),
            (f"../../pip-24.2-py3-none-any.whl#sha256={DIGEST}", ""),
            (f"../../pip-25.0rc1-py3-none-any.whl#sha256={DIGEST}", ""),
            (f"../../pip-25.9-py3-none-any.whl#sha256={DIGEST}", 'data-yanked=""'),
        )
        done = self.fetch(index, tmp_path)
        assert done.stdout.strip() == "pip-24.2-py3-none-any.whl", done.stderr
        assert (tmp_path / "pip-24.2-py3-none-any.whl").read_bytes() == WHEEL

    def test_other_bytes_than_the_page_announces_are_refused(self, index: IndexServer, tmp_path: Path) -> None:
        index.links = ((f"../../pip-24.2-py3-none-any.whl#sha256={'0' * 64}", ""),)
        done = self.fetch(index, tmp_path)
        assert done.returncode == 1
        assert "the sha256 of pip-24.2-py3-none-any.whl is not the one on the index page" in done.stderr
        assert not (tmp_path / "pip-24.2-py3-none-any.whl").exists()


def test_python_finds_the_checkout_in_every_locale_wherever_it_lies() -> None:
    """Python reads this file by the locale's encoding: a path of other letters would end it in an ASCII one."""
    (file,) = (CHECKOUT / ".venv" / "lib").glob("python3*/site-packages/_editable_impl_constitution_runbook.pth")
    (line,) = file.read_text().splitlines()
    assert not Path(line).is_absolute()
    assert (file.parent / line).resolve() == CHECKOUT
