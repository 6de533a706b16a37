"""What is written to stack.env comes back the same from every reader of it: ours, python-dotenv's, and a shell."""

import subprocess
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic_settings import BaseSettings, SettingsConfigDict

from deploy.embedded.envfile import read_settings, write_settings
from deploy.embedded.server import ServerError

NAMES = (
    "/srv/plain",
    "/srv/my files",
    "/srv/Zoë",
    "/srv/a, b",
    "/srv/O'Brien",
    '/srv/a "name"',
    "/srv/${HOME}",
    "/srv/$HOME $(id) ${HOME:-x} ${A_DOLLAR:-y}",
    "/srv/O'Brien ${HOME}",
    r"/srv/back\slash \\ \n \' \$",
    "/srv/#1 # 2",
    "/srv/!x! [1]* ? %41 & ; | < > ( ) ~",
    "/srv/日本 🙂",
    "",
)


def by_bash(file: Path) -> str:
    script = 'set -auo pipefail; source "$0"; printf "%s" "$VALUE"'
    clean = {"PATH": "/usr/bin:/bin", "HOME": "/nowhere"}
    return subprocess.run(["bash", "-c", script, file], env=clean, capture_output=True, check=True).stdout.decode()  # noqa: S603, S607


class Settings(BaseSettings):
    """Reads as the command line does."""

    model_config = SettingsConfigDict(extra="ignore")

    value: str


@pytest.mark.parametrize("value", NAMES)
def test_every_reader_reads_the_same(tmp_path: Path, value: str) -> None:
    file = tmp_path / "stack.env"
    write_settings(file, {"VALUE": value, "Z": "1"})
    assert read_settings(file) == {"VALUE": value, "Z": "1"}
    assert dotenv_values(file) == {"VALUE": value, "Z": "1"}
    assert Settings(_env_file=file).value == value
    assert by_bash(file) == value


@settings(max_examples=60, deadline=None)
@given(value=st.text(st.sampled_from("a \\'\"$#{}:-!é~\t"), max_size=12))
def test_so_do_they_for_any_mixture(tmp_path_factory: pytest.TempPathFactory, value: str) -> None:
    file = tmp_path_factory.mktemp("any") / "stack.env"
    write_settings(file, {"VALUE": value})
    assert read_settings(file) == dotenv_values(file) == {"VALUE": value}
    assert by_bash(file) == value


@pytest.mark.parametrize("value", ["/srv/a`id`", "/srv/a\nB=1", "/srv/a\rb", "/srv/\udce9", "a\0b"])
def test_what_no_reader_reads_alike_is_refused_and_the_file_stays(tmp_path: Path, value: str) -> None:
    file = tmp_path / "stack.env"
    write_settings(file, {"VALUE": "before"})
    with pytest.raises(ServerError, match=r"VALUE .* cannot be written to stack\.env"):
        write_settings(file, {"VALUE": value})
    assert read_settings(file) == {"VALUE": "before"}
