"""How a service starts: every missing setting is named at once, no secret is repeated; audit events wait on disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from adapters.process_settings import read_settings
from constitution.errors import InvalidRequestError
from services.constitution_service.settings import ServiceSettings
from services.constitution_service.spool import Spool

CHECKOUT = Path(__file__).resolve().parents[2]


def test_every_missing_setting_is_named_at_once_and_no_value_is_repeated() -> None:
    environment = {
        "PATH": os.environ["PATH"],
        "PORT": "no-port",
        "DATABASE_URL": " ",
        "REDIS_URL": "",
        "NAMESPACE": "not/allowed",
        "KAFKA_PASSWORD": "hunter2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "services.constitution_service"],
        env=environment,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    for name in (
        "PORT",
        "DATABASE_URL",
        "REDIS_URL",
        "NAMESPACE",
        "ENVIRONMENT_FILE",
        "STATEMENT_KEY_FILE",
        "SPOOL_DIRECTORY",
    ):
        assert name in done.stderr, name
    assert "KAFKA_BOOTSTRAP_SERVERS" in done.stderr
    assert "hunter2" not in done.stderr
    assert "not/allowed" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_migration_without_its_address_says_so() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "services.constitution_service.migrate"],
        env={"PATH": os.environ["PATH"]},
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, "DATABASE_MIGRATION_URL" in done.stderr) == (2, True)


def test_blank_is_unset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "environment.toml").touch()
    (tmp_path / "key.jwk").touch()
    given = {
        "ENVIRONMENT_FILE": str(tmp_path / "environment.toml"),
        "PORT": "8080",
        "DATABASE_URL": "postgresql://x",
        "REDIS_URL": "redis://x",
        "ARTIFACT_STORE_URL": "file:///x",
        "STATEMENT_KEY_FILE": str(tmp_path / "key.jwk"),
        "SPOOL_DIRECTORY": "/x",
        "KAFKA_BOOTSTRAP_SERVERS": "localhost:1",
        "NAMESPACE": "",
        "HOST": "",
    }
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = read_settings(ServiceSettings)
    assert (settings.namespace, settings.host, settings.port) == ("", "127.0.0.1", 8080)
    assert settings.kafka_client() == {"bootstrap.servers": "localhost:1", "security.protocol": "PLAINTEXT"}
    monkeypatch.setenv("PORT", "")
    with pytest.raises(InvalidRequestError) as refused:
        read_settings(ServiceSettings)
    assert [issue.path for issue in refused.value.issues] == ["PORT"]


def test_spooled_events_come_out_in_order_and_the_spool_is_bounded(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", capacity=3)
    taken = [spool.put(f"event {number}") for number in range(4)]

    assert taken == [True, True, True, False]
    again = Spool(tmp_path / "spool")
    assert [again.read(path) for path in again.waiting()] == ["event 0", "event 1", "event 2"]
    first = again.waiting()[0]
    assert first.stat().st_mode & 0o777 == 0o600
    again.taken(first)
    again.taken(first)
    assert again.read(first) is None
    assert len(again) == 2


STARTS = """
import gc, os, signal
from contextlib import asynccontextmanager
from types import SimpleNamespace
from services.common.app import create_app
from services.common.server import run
from tests.ports import free_port

@asynccontextmanager
async def lifespan(app):
    print(gc.get_freeze_count())
    os.kill(os.getpid(), signal.SIGTERM)
    yield

async def ready(): ...

settings = SimpleNamespace(host="127.0.0.1", port=free_port())
raise SystemExit(run(lambda: create_app(title="any", ready=ready, lifespan=lifespan), settings))
"""


def test_no_collection_walks_through_the_program_itself() -> None:
    done = subprocess.run(  # noqa: S603 - our own code
        [sys.executable, "-c", STARTS], cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 10_000
