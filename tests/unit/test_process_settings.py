"""Each process reads its settings alike: blank is unset, every problem is named at once, no value is repeated."""

import os
import stat
from pathlib import Path

import pytest

from adapters.process_settings import ExistingFile, ExistingFolder, FrozenSettings, read_settings
from adapters.settings import WorkerSettings
from constitution.errors import InvalidRequestError
from services.constitution_service.migrate import MigrationSettings
from services.constitution_service.settings import ServiceSettings

SECRETS = {
    WorkerSettings: ("DATABASE_READER_URL", "REDIS_URL", "SLACK_BOT_TOKEN"),
    ServiceSettings: ("DATABASE_URL", "REDIS_URL"),
    MigrationSettings: ("DATABASE_MIGRATION_URL",),
}


class NestedSettings(FrozenSettings):
    """Settings with a list, as none of ours has."""

    allowed_ports: tuple[int, ...] = ()


class PathSettings(FrozenSettings):
    """Settings that name what must exist."""

    some_file: ExistingFile
    some_folder: ExistingFolder


def _problems(kind: type[FrozenSettings]) -> dict[str, str]:
    with pytest.raises(InvalidRequestError) as refused:
        read_settings(kind)
    return {issue.path: issue.message for issue in refused.value.issues}


@pytest.mark.parametrize("kind", SECRETS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("blank", ["", " ", "\t\n"], ids=repr)
def test_a_blank_secret_is_missing(kind: type[FrozenSettings], blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SECRETS[kind]:
        monkeypatch.setenv(name, blank)
    problems = _problems(kind)
    assert {name: problems.get(name) for name in SECRETS[kind]} == dict.fromkeys(SECRETS[kind], "Field required")


@pytest.mark.parametrize("kind", [WorkerSettings, ServiceSettings], ids=lambda kind: kind.__name__)
def test_a_blank_optional_setting_has_its_default(kind: type[FrozenSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOST", "LOG_LEVEL", "NAMESPACE", "KAFKA_SECURITY_PROTOCOL", "SLACK_API_URL"):
        monkeypatch.setenv(name, "  ")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "localhost:1")
    assert not {"HOST", "LOG_LEVEL", "NAMESPACE", "KAFKA_SECURITY_PROTOCOL", "SLACK_API_URL"} & _problems(kind).keys()


def test_a_problem_inside_a_value_stands_under_the_name_of_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALLOWED_PORTS", '[1, "hunter2"]')
    (path,) = _problems(NestedSettings)
    assert path == "ALLOWED_PORTS"


def test_an_unreadable_value_and_a_variable_that_nobody_reads_are_named_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALLOWED_PORTS", "hunter2")
    monkeypatch.setenv("KAFKA_SASL_MECHANISMS", "hunter2")
    with pytest.raises(InvalidRequestError) as refused:
        read_settings(NestedSettings)
    said = refused.value.diagnostics()
    assert "allowed_ports" in said
    assert "KAFKA_SASL_MECHANISMS" in said
    assert "hunter2" not in said


@pytest.mark.parametrize("name", ["absent", "x" * 300, "file/below"])
def test_a_path_that_cannot_be_read_is_a_problem_like_any_other(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("SOME_FILE", str(tmp_path / name))
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path / name))
    assert _problems(PathSettings).keys() == {"SOME_FILE", "SOME_FOLDER"}


def test_a_file_is_a_regular_file_and_a_folder_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, pipe = tmp_path / "file", tmp_path / "pipe"
    file.touch()
    os.mkfifo(pipe)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    monkeypatch.setenv("SOME_FILE", str(pipe))  # reading it would hang
    monkeypatch.setenv("SOME_FOLDER", str(file))
    assert {path: message.partition(", ")[2] for path, message in _problems(PathSettings).items()} == {
        "SOME_FILE": "is no regular file",
        "SOME_FOLDER": "is no folder",
    }
    monkeypatch.setenv("SOME_FILE", str(file))
    monkeypatch.setenv("SOME_FOLDER", str(tmp_path))
    assert read_settings(PathSettings) == PathSettings(some_file=file, some_folder=tmp_path)


def test_a_password_in_the_address_and_one_in_a_file_are_refused_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "password").write_text("hunter2", encoding="utf-8")
    monkeypatch.setenv("DATABASE_PASSWORD_FILE", str(tmp_path / "password"))
    monkeypatch.setenv("DATABASE_MIGRATION_URL", "postgresql://owner:hunter3@db/constitution")
    (said,) = _problems(MigrationSettings).values()
    assert "DATABASE_MIGRATION_URL holds a password" in said
    assert "hunter" not in said
    monkeypatch.setenv("DATABASE_MIGRATION_URL", "postgresql://owner@db/constitution")
    assert read_settings(MigrationSettings).database_password_file == tmp_path / "password"
