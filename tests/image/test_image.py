"""The image that `deploy/Dockerfile` builds: what is in it, and a release with every role running from it."""

import asyncio
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from deploy.embedded import development
from deploy.embedded.server import Server
from deploy.embedded.services import SERVICES, TARGETS
from deploy.embedded.stack_directory import CHECKOUT, StackDirectory
from tests.helpers import eventually
from tests.image.container import USER, Container, RunningRole
from tests.resources import Slack
from tests.world import database

pytestmark = pytest.mark.image

WRITABLE = {"/tmp", "/var/tmp", "/run/lock", "/var/lock"}  # noqa: S108 - mounted where the root is read-only
TOOLS = ("cc", "gcc", "g++", "ld", "make", "pip", "pip3", "uv", "git", "curl", "wget")
CLIENT = ("CONSTITUTION_SERVICE_URL", "CLIENT_KEY_FILE", "ENVIRONMENT_FILE", "TRUST_FILE", "NAMESPACE")


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    folder = tmp_path / "data"
    folder.mkdir()
    made = Container(folder)
    yield made
    made.remove()


def test_has_no_compiler_and_nothing_to_write_to(container: Container) -> None:
    found = container.run("sh", "-c", f"for tool in {' '.join(TOOLS)}; do command -v $tool || true; done")
    assert found == ""
    places = r"\( -path /proc -o -path /sys -o -path /dev \) -prune -o"
    writable = container.run("sh", "-c", f"find / -xdev {places} -writable ! -type l -print 2>/dev/null || true")
    assert set(writable.split()) <= WRITABLE
    assert container.run("id", "-u").strip() == str(USER)


def test_says_what_it_was_built_from(container: Container) -> None:
    provenance = json.loads(container.run("cat", "/opt/constitution/provenance.json"))
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    names = {material["name"] for material in provenance["predicate"]["buildDefinition"]["resolvedDependencies"]}
    assert {"uv.lock", "source"} <= names
    listed = json.loads(container.run("cat", "/opt/constitution/sbom.cdx.json"))["components"]
    installed = container.run(
        "python", "-c", "from importlib.metadata import distributions as d; print(*{x.name.lower() for x in d()})"
    ).split()
    assert {_plain(name) for name in installed} - {"constitution-runbook"} <= {_plain(one["name"]) for one in listed}


def test_an_unknown_role_is_told_which_there_are(container: Container) -> None:
    container.run("role", "wroker", code=2)
    assert json.loads(container.run("role", "client", "--version")) == {"version": version("constitution-runbook")}


def test_the_doctor_has_every_driver_and_says_what_nothing_names(container: Container) -> None:
    report = json.loads(container.run("role", "client", "doctor", "--deployment", "--json", code=3))
    assert report["state"] == "cannot tell"
    assert {check["subject"] for check in report["checks"]} == {"address"}


@pytest.mark.timeout(420)
async def test_a_release_goes_through_with_every_role_running_from_it(
    container: Container,
    servers: dict[str, str],
    postgres_settings: dict[str, str],
    namespace: str,
    slack: Slack,
    *,
    tmp_path: Path,
) -> None:
    directory = StackDirectory(tmp_path / "data")
    async with database.lent(postgres_settings) as addresses:  # empty: the image's own migrations make its tables
        directory.settings = servers | addresses | {"NAMESPACE": namespace, "RECONCILE_SECONDS": "0"}
        roles = _prepared(directory, slack)
        _given_to_the_image(directory.path)
        migration = {"DATABASE_MIGRATION_URL": addresses["DATABASE_MIGRATION_URL"]}
        await asyncio.to_thread(container.role, migration, "migrate")
        with ExitStack() as stack:
            stack.callback(directory.close)
            running: dict[str, RunningRole] = {}
            for name, (server, settings) in roles.items():
                role, log = name.rstrip("-0123456789"), tmp_path / f"{name}.log"
                running[name] = stack.enter_context(container.running(role, name, settings, log))
                if name == "constitution-service":
                    await _answers(server, running[name])
            for name, (server, _) in roles.items():
                await _answers(server, running[name])
            release = await asyncio.to_thread(_release, container, directory)
            memory = {name: round(process.megabytes()) for name, process in running.items()}
            assert all(process.alive for process in running.values())
    (CHECKOUT / "var" / "image.json").write_text(json.dumps({"memory_mb": memory}, indent=1), encoding="utf-8")
    assert release["generation"] == 1
    assert [record["standing"] for record in release["standings"]] == ["confirmed"]


def _plain(package: str) -> str:
    """A package's name as PEP 503 compares names."""
    return re.sub(r"[-_.]+", "-", package).lower()


def _prepared(directory: StackDirectory, slack: Slack) -> dict[str, tuple[Server, dict[str, str]]]:
    """Make the environment; return each process with its settings."""
    file = development.environment_file(directory)
    file.parent.mkdir(mode=0o700)
    shutil.copytree(CHECKOUT / "bench" / "gate", directory.path / "gate")
    addresses = {name: (kind, f"http://127.0.0.1:{directory.port(name)}") for name, kind in TARGETS.items()}
    development.write_environment(file, addresses, gate=directory.path / "gate")
    file.write_text(file.read_text(encoding="utf-8").replace("#release", f"#{slack.channel_name}"), encoding="utf-8")
    processes = [kind(directory, print) for kind in SERVICES]
    development.make(directory, addresses)
    for process in processes:
        directory.settings |= process.settings()
    return {process.name: (process, dict(process.command().environment)) for process in processes}


def _given_to_the_image(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)


async def _answers(server: Server, role: RunningRole) -> None:
    async def answers() -> bool:
        assert role.alive, role.log.read_text(encoding="utf-8")[-3000:]
        try:
            await server.check()
        except Exception as error:
            raise AssertionError(repr(error)) from error
        return True

    await eventually(answers, timedelta(seconds=60))


def _release(container: Container, directory: StackDirectory) -> dict[str, Any]:
    """Do by the image's own client what the README says."""
    settings = {
        name: value for name, value in directory.settings.items() if name in CLIENT or name.startswith("TEMPORAL_")
    }
    keys = development.environment_directory(directory) / "keys"
    document = str(directory.path / "v1.json")

    def client(*command: str) -> str:
        return container.role(settings, "client", *command)

    client("draft", "--template", "tool-use", "--version", "1.0.0", "--previous", "none", "--out", document)
    client("sign", document, "--key", f"{keys}/mara.tsk")
    client("push", "--path", document, "--signature", f"{document}.sig")
    client("change-request", "--id", "CR-1", "--path", document, "--reason", "first", "--key", f"{keys}/mara.tsk")
    checksum = hashlib.sha256(Path(document).read_bytes()).hexdigest()
    client("update", "--checksum", f"sha256:{checksum}", "--change-request", "CR-1")
    for person in ("alva", "bruno"):
        client("approve", "CR-1", "--key", f"{keys}/{person}.tsk", "--yes")
    client("watch", "CR-1")
    found: dict[str, Any] = json.loads(client("show", "1"))
    return found
