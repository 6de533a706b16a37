"""deploy/compose.yaml without Docker: the Compose specification's schema, and settings that each process reads."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters.setting_names import unread
from deploy.embedded.prometheus import programs
from deploy.embedded.stack_directory import CHECKOUT
from deploy.settings_reference import PROCESSES
from tests.chart.settings import OF_OTHERS, names_of, needed_by
from tests.chart.tools import tool
from workflows.status import SEARCH_ATTRIBUTES

pytestmark = pytest.mark.chart

FILE = CHECKOUT / "deploy" / "compose.yaml"
IMAGE = re.compile(r"\$\{CONSTITUTION_IMAGE:\?[^}]*\}")


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))["services"]
    return found


def ours() -> dict[str, tuple[str, dict[str, Any]]]:
    """The process and the service of each of ours, by its name; an entrypoint of its own is no role."""
    return {
        name: (service["command"][0], service)
        for name, service in services().items()
        if IMAGE.fullmatch(service["image"]) and "entrypoint" not in service
    }


def test_it_fits_the_specifications_own_schema() -> None:
    done = subprocess.run(  # noqa: S603
        [tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", str(FILE)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_role_is_in_it() -> None:
    assert {process for process, _ in ours().values()} == set(PROCESSES)


@pytest.mark.parametrize("name", sorted(ours()))
def test_each_process_is_given_what_it_needs_and_nothing_that_it_does_not_read(name: str) -> None:
    process, service = ours()[name]
    given = set(service["environment"])
    assert unread(given) == ()
    own = {setting for setting in given if not OF_OTHERS.fullmatch(setting)}
    if process != "migrate":  # one name of all processes alike: a migration listens nowhere
        assert own <= names_of(process), process
    assert needed_by(process) <= given, process


@pytest.mark.parametrize("name", sorted(ours()))
def test_no_process_of_ours_may_more_than_it_needs(name: str) -> None:
    _, service = ours()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "user" not in service  # the image's own: 10001
    for mount in service.get("volumes", []):
        if isinstance(mount, dict):
            assert mount["read_only"] is True


def test_no_secret_is_written_into_it_and_nothing_listens_beyond_this_machine() -> None:
    secret = re.compile(r"PASSWORD|SECRET|TOKEN|PWD|_URL$")
    for name, service in services().items():
        environment = service.get("environment", {})
        for setting, value in environment.items():
            if secret.search(setting) and ("://" not in str(value) or "@" in str(value)):
                assert "${" in str(value), f"{name}: {setting}"
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), f"{name}: {port}"


def test_every_file_that_it_mounts_is_there() -> None:
    for name, service in services().items():
        for mount in service.get("volumes", []):
            source = mount.partition(":")[0] if isinstance(mount, str) else ""
            if source.startswith("./"):
                assert (FILE.parent / source).is_file(), f"{name}: {source}"


def test_every_search_attribute_is_registered() -> None:
    (script,) = services()["search-attributes"]["command"]
    (keywords,) = re.findall(r"for name in ([\w ]+); do", script)
    named = {f"Constitution{name}": "Keyword" for name in keywords.split()} | {"ConstitutionGeneration": "Int"}
    assert named == {key.name: key.indexed_value_type.name.title() for key in SEARCH_ATTRIBUTES}


def test_prometheus_takes_its_configuration(tmp_path: Path) -> None:
    folder = FILE.parent
    configuration = yaml.safe_load((folder / "compose" / "prometheus.yaml").read_text(encoding="utf-8"))
    scraped = {
        target.partition(":")[0]
        for job in configuration["scrape_configs"]
        for target in job["static_configs"][0]["targets"]
    }
    assert scraped >= {name for name, (process, _) in ours().items() if process != "migrate"}
    configuration["rule_files"] = [str(folder / "helm" / "constitution" / "files" / "alerts.yaml")]
    file = tmp_path / "prometheus.yaml"
    file.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    folder = programs(tmp_path / "log", print, dict(os.environ))
    done = subprocess.run(  # noqa: S603
        [folder / "promtool", "check", "config", str(file)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_archive_is_made_once_and_found_again(tmp_path: Path) -> None:
    (script,) = services()["prepare"]["command"]
    (line,) = [line for line in script.splitlines() if "dulwich" in line]
    line = line.replace("/archive", shlex.quote(str(tmp_path)))
    line = line.replace("dulwich", shlex.quote(str(Path(sys.executable).with_name("dulwich"))))
    for _ in range(2):
        subprocess.run(["/bin/sh", "-euc", line], check=True, timeout=60)  # noqa: S603
        assert (tmp_path / "HEAD").is_file()
    assert not (tmp_path / ".git").exists()
