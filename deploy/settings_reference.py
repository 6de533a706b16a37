"""Writes docs/settings.md: every setting of every process, from the classes that read them.

    python -m deploy.settings_reference >docs/settings.md

A test compares the two, so that no setting is missing there and none is left over.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from enum import EnumType
from pathlib import Path
from typing import Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from adapters.settings import AssessorSettings, WorkerSettings
from services.constitution_service.migrate import MigrationSettings
from services.constitution_service.settings import ServiceSettings
from services.orchestrator.settings import OrchestratorSettings
from services.policy_engine.settings import PolicyEngineSettings
from services.siem_forwarder.settings import ForwarderSettings

PROCESSES: dict[str, type[BaseSettings]] = {
    "constitution-service": ServiceSettings,
    "policy-engine": PolicyEngineSettings,
    "orchestrator": OrchestratorSettings,
    "siem-forwarder": ForwarderSettings,
    "worker": WorkerSettings,
    "assessor": AssessorSettings,
    "migrate": MigrationSettings,
}
HEAD = """\
> Pledge: `python -m deploy.settings_reference` writes this from the classes that read the settings; a test compares.

# Settings of each process

Environment variables, read once at the start; blank is unset, and every problem is listed at once. A **secret** is
repeated in no message. Temporal's own (`TEMPORAL_ADDRESS`, `TEMPORAL_NAMESPACE`, `TEMPORAL_TLS_…`, `TEMPORAL_API_KEY`,
profiles) are read as its command line reads them; those of the artifact store (`AWS_…`, `GOOGLE_…`, `AZURE_…`) as each
cloud's own tools read them; `SSL_CERT_FILE` as OpenSSL does. How each server can be reached: [deploy.md](deploy.md).
Those of the command line: [cli.md](cli.md).
"""
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)


def reference() -> str:
    """Return the page."""
    return HEAD + "".join(_section(name, kind) for name, kind in PROCESSES.items())


def _section(process: str, kind: type[BaseSettings]) -> str:
    said = {name: text for base in reversed(kind.__mro__) for name, text in _said(base)}
    rows = [_row(name, field, said[name]) for name, field in sorted(kind.model_fields.items(), key=_needed_first)]
    return f"\n## {process}\n\n| setting | default | it is |\n|---|---|---|\n" + "".join(rows)


def _said(kind: type) -> Iterator[tuple[str, str]]:
    """Yield what a class's docstring says of each of its settings."""
    for name, text in _ARGUMENT.findall(inspect.cleandoc(kind.__doc__ or "")):
        plain = " ".join(line.strip() for line in text.splitlines())
        rest = re.sub(rf"^``{name.upper()}``(?: of |[,:;]? ?)", "", plain).replace("``", "`")
        yield name, rest.strip(" .")


def _needed_first(item: tuple[str, FieldInfo]) -> tuple[bool, str]:
    return not item[1].is_required(), item[0]


def _row(name: str, field: FieldInfo, said: str) -> str:
    if field.is_required():
        default = "**needed**"
    elif isinstance(field.default, SecretStr) or field.default in {None, ""}:
        default = "unset"
    elif isinstance(field.default, Path):
        default = "see there"  # of this machine
    else:
        default = f"`{field.default}`"
    parts = ["**secret**"] if field.annotation is SecretStr else []
    choices: tuple[object, ...] = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    if isinstance(field.annotation, EnumType):
        choices = tuple(field.annotation.__members__.values())
    if names := [f"`{choice}`" for choice in choices]:
        parts.append(f"one of {', '.join(names)}")
    return f"| `{name.upper()}` | {default} | {'; '.join([*parts, said]).replace('|', chr(92) + '|')} |\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
