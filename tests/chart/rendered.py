"""The chart as Helm renders it: the real Helm, built once into the cache."""

import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from deploy.embedded.go_build import go_program
from deploy.embedded.stack_directory import CHECKOUT, StackDirectory

CHART = CHECKOUT / "deploy" / "helm" / "constitution"
VALUES = Path(__file__).with_name("values")
VERSION = "v3.22.0"
TEMPLATE = ("template", "prod", str(CHART), "--kube-version", "1.37.0")  # built from its module, it assumes an old one


@cache
def helm() -> str:
    """Return the program."""
    directory = StackDirectory(CHECKOUT / "var" / "tools")
    return str(go_program(directory, print, "helm.sh/helm/v3/cmd/helm", VERSION))


def run(*arguments: str, code: int = 0) -> str:
    """Run Helm; return what it printed."""
    done = subprocess.run([helm(), *arguments], capture_output=True, text=True, check=False, timeout=100)  # noqa: S603
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def template(values: str, *more: str) -> str:
    """Return the manifests of a value set."""
    return run(*TEMPLATE, "--values", str(VALUES / f"{values}.yaml"), *more)


class Manifests:
    """The objects of a value set."""

    def __init__(self, values: str, *more: str) -> None:
        self.objects: list[dict[str, Any]] = [found for found in yaml.safe_load_all(template(values, *more)) if found]

    def of(self, kind: str) -> dict[str, dict[str, Any]]:
        """Every object of a kind, by its name."""
        return {found["metadata"]["name"]: found for found in self.objects if found["kind"] == kind}

    def pods(self) -> dict[str, dict[str, Any]]:
        """Every pod's specification, by the name of what makes it."""
        return {
            found["metadata"]["name"]: found["spec"]["template"]["spec"]
            for found in self.objects
            if found["kind"] in {"Deployment", "StatefulSet", "Job", "WorkerDeployment"}
        }
