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

from deploy.embedded.site import CHECKOUT

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
