"""The wheel as people get it: built, installed into an empty environment, and used there without the checkout."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from deploy.bootstrap import find_uv, tools_environment

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 60_000_000  # docs/cli.md
IMPORTS = """
import importlib, json, pkgutil
failed = {}
for top in %r:
    try:
        package = importlib.import_module(top)
    except ModuleNotFoundError as error:
        failed[top] = error.name
        continue
    for module in pkgutil.walk_packages(package.__path__, top + "."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                failed[module.name] = error.name
print(json.dumps(failed))
"""


def run(command: Sequence[str | Path], *, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a command that sees neither this checkout nor the settings of its stack."""
    environment = {"PATH": os.defpath, "HOME": str(cwd), "LANG": "C.UTF-8"}
    kept = ("UV_", "PIP_", "SSL_", "HTTP", "NO_PROXY", "XDG_CACHE")
    environment |= {name: value for name, value in os.environ.items() if name.upper().startswith(kept)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=100)  # noqa: S603
    assert done.returncode == code, done.stdout + done.stderr
    return done


class Installed:
    """An environment of its own with the wheel in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uv = find_uv()
        asked = [self.uv, "cache", "dir"]
        cache = subprocess.check_output(asked, text=True, env=tools_environment(os.environ))  # noqa: S603
        self._cache = ("--cache-dir", cache.strip())
        run([self.uv, *self._cache, "build", "--wheel", "--out-dir", folder, ROOT], cwd=folder)
        self.wheel = next(folder.glob("*.whl"))
        self.constraints = folder / "constraints.txt"
        export = ["export", "--project", str(ROOT), "--frozen", "--all-extras", "--no-hashes", "--no-emit-project"]
        run([self.uv, *self._cache, *export, "--output-file", self.constraints], cwd=folder)
        run([self.uv, *self._cache, "venv", "--python", sys.executable, folder / "venv"], cwd=folder)
        self.python = folder / "venv" / "bin" / "python"
        self.install("")

    def install(self, extras: str) -> None:
        """Install as pip does: with byte code."""
        pip = ("pip", "install", "--python", str(self.python), "--compile-bytecode")
        run([self.uv, *self._cache, *pip, "-c", self.constraints, f"{self.wheel}{extras}"], cwd=self.folder)

    def constitution(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Type a command."""
        return run([self.folder / "venv" / "bin" / "constitution", *arguments], cwd=self.folder, code=code)

    def bytes(self) -> int:
        """Everything in the environment but links to the interpreter."""
        return sum(path.lstat().st_size for path in (self.folder / "venv").rglob("*") if path.is_file())

    def unimportable(self) -> dict[str, str]:
        """Which modules of the wheel cannot be imported, and what each lacks."""
        return dict(json.loads(run([self.python, "-c", IMPORTS % (packages(),)], cwd=self.folder).stdout))


def packages() -> list[str]:
    """What pyproject.toml says is in the wheel."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(project["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"])


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return Installed(tmp_path_factory.mktemp("wheel"))


def cpu_seconds(command: Sequence[str | Path], folder: Path) -> float:
    """Return the processor time of one run: waiting for a busy machine does not count."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, env={"LANG": "C.UTF-8"})  # noqa: S603
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


def test_takes_no_other_top_level_name(installed: Installed) -> None:
    with zipfile.ZipFile(installed.wheel) as wheel:
        names = {name.split("/")[0] for name in wheel.namelist()}
    own = {name for name in names if not name.endswith(".dist-info")}
    assert own == set(packages())
    assert all(name == "signatures" or name.startswith("constitution") for name in own)


def test_the_client_alone_is_small(installed: Installed) -> None:
    assert installed.bytes() < MOST_BYTES


def test_help_starts_almost_as_fast_as_the_interpreter(installed: Installed) -> None:
    bare: list[str | Path] = [installed.python, "-c", "import argparse; argparse.ArgumentParser().parse_args([])"]
    helped: list[str | Path] = [installed.folder / "venv" / "bin" / "constitution", "--help"]
    times = [(cpu_seconds(bare, installed.folder), cpu_seconds(helped, installed.folder)) for _ in range(15)]
    ratio = min(told for _, told in times) / min(plain for plain, _ in times)
    assert ratio < 2, f"{ratio:.2f} times the interpreter with its argument parser"


@pytest.mark.parametrize("arguments", [("drill",), ("doctor", "--deployment")], ids=" ".join)
def test_the_client_alone_says_where_else_a_verb_can_run(installed: Installed, arguments: tuple[str, ...]) -> None:
    said = installed.constitution(*arguments, code=2).stderr
    assert "missing: deploy." in said
    assert "in a checkout" in said


def test_the_client_alone_signs_and_verifies(installed: Installed) -> None:
    installed.constitution("init", "--environment", "development", "--directory", "dev")
    document = installed.folder / "document.json"
    document.write_text("{}\n", encoding="utf-8")
    installed.constitution("sign", str(document), "--key", "dev/keys/mara.tsk")
    signed = f"{document}.sig"
    told = installed.constitution(
        "verify-signature", "--path", str(document), "--signature", signed, "--trust", "dev/trust/trust.toml"
    )
    assert json.loads(told.stdout)["signers"] == ["mara"]


def test_a_command_says_which_part_it_lacks(installed: Installed) -> None:
    lacking = {module: name.partition(".")[0] for module, name in installed.unimportable().items()}
    libraries = {
        "cel_expr_python",
        "google",
        "jsonschema",
        "prometheus_client",
        "re2",
        "structlog",
        "temporalio",
        "webauthn",
    }
    assert set(lacking.values()) <= libraries, lacking
    status = installed.constitution("status", code=2)
    assert "pip install 'constitution-runbook[temporal]'" in status.stderr
    draft = ("draft", "--template", "tool-use", "--version", "1.0.0", "--previous", "none", "--out", "v1.json")
    refused = installed.constitution(*draft, "--environment", "development", code=2)
    assert "pip install 'constitution-runbook[rules]'" in refused.stderr


def test_a_program_that_obeys_needs_one_part_and_no_temporal(installed: Installed) -> None:
    told = run([installed.python, "-c", "import constitution_follow"], cwd=installed.folder, code=1)
    assert "pip install 'constitution-runbook[follow]'" in told.stderr
    installed.install("[follow]")
    assert not [module for module in installed.unimportable() if module.startswith("constitution_follow")]
    run([installed.python, "-c", "import temporalio"], cwd=installed.folder, code=1)


@pytest.mark.slow
def test_with_every_part_every_module_works(installed: Installed) -> None:
    installed.install("[operator,follow]")
    assert installed.unimportable() == {}
    draft = ("draft", "--template", "tool-use", "--version", "1.0.0", "--previous", "none", "--out", "v1.json")
    installed.constitution(*draft, "--environment", "development")
    assert json.loads((installed.folder / "v1.json").read_text(encoding="utf-8"))["version"] == "1.0.0"
    asked = installed.constitution("status", code=3)  # Temporal was looked for, and nothing answers there
    assert "does not answer" in asked.stderr
