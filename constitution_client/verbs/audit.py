"""``audit verify``: is the audit stream whole? With public keys alone; of a file, offline."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitution_client.output import JsonOption, progress, result

if TYPE_CHECKING:
    from collections.abc import Iterator

    from constitution_client.settings import ClientSettings
    from signatures.audit_verify import AuditVerifier

NEEDED = ("deploy.audit_topic", "confluent_kafka")
HEADS = ("audit-head-*.json", "newest.json", "heads/*.json")  # in the legal archive, and in the artifact store

app = typer.Typer(no_args_is_help=True, help="The audit stream: is it whole?")


@app.callback()
def _audit() -> None:
    """The audit stream: is it whole?"""


@app.command()
def verify(
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", help="One event a line, as the SIEM forwarder writes them; default: read the topic."),
    ] = None,
    head: Annotated[
        list[Path] | None,
        typer.Option("--head", help="A signed head, or a folder of them: archive or store. May be repeated."),
    ] = None,
    trust: Annotated[
        Path | None, typer.Option("--trust", help="trust.toml (env: TRUST_FILE, or by ENVIRONMENT_FILE).")
    ] = None,
    json: JsonOption = None,
) -> None:
    """Say whether audit events are missing, changed or out of order. Exit 0 if none are, else 1.

    The topic is compared with the head that constitution-service names, and with those given; a file with those given.
    """
    from constitution_client.connections import trust_policy
    from constitution_client.settings import settings
    from signatures.audit_verify import AuditVerifier

    configured = settings()
    verifier = AuditVerifier(trust_policy(configured, trust))
    for path in head or ():
        _add_heads(verifier, path)
    if file is not None:
        for record in _lines_of(file):
            verifier.add(record)
    else:
        asyncio.run(_ask(verifier, configured))
        _read_topic(verifier)
        if verifier.highest > verifier.head_sequence:  # sent while it was read, or by somebody else
            verifier.everything_is_signed = asyncio.run(_ask(verifier, configured))
    report = verifier.report()
    result(report.model_dump(mode="json"), report.lines(), json)
    raise typer.Exit(0 if report.complete else 1)


def _add_heads(verifier: "AuditVerifier", path: Path) -> None:
    from constitution.release import Envelope
    from constitution.untrusted import read_message
    from constitution_client.files import FileRefusedError, read_bytes

    files = [path]
    if path.is_dir():
        files = sorted({found for pattern in HEADS for found in path.rglob(pattern)})
        if not files:
            raise FileRefusedError(f"no signed head lies in {path}", hint=f"their names: {', '.join(HEADS)}")
    for one in files:
        data = read_bytes(one, what="head")
        try:
            envelope = read_message(Envelope, data)
        except ValueError as error:
            raise FileRefusedError(f"{one} holds no signed head") from error
        verifier.add_head(envelope, str(one))


def _lines_of(path: Path) -> "Iterator[bytes]":
    from constitution_client.files import FileRefusedError
    from signatures.audit_verify import MAX_RECORD

    try:
        with path.open("rb") as lines:
            while line := lines.readline(MAX_RECORD + 2):
                if line.strip():
                    yield line
    except OSError as error:
        raise FileRefusedError(f"{path}: {error.strerror}") from error


async def _ask(verifier: "AuditVerifier", configured: "ClientSettings") -> bool:
    """Take the head that constitution-service names, if it answers. Without one that was given, it must."""
    from constitution.errors import NotFoundError, UnavailableError
    from constitution_client.connections import service_client

    if configured.constitution_service_url is None and verifier.head_sequence:
        return False
    try:
        async with service_client(configured) as service:
            verifier.add_head(await service.audit_head(), f"{configured.constitution_service_url}")
    except NotFoundError:
        progress("constitution-service has signed no head yet")
        return False
    except UnavailableError as error:
        if not verifier.head_sequence:
            raise
        progress(f"constitution-service was not asked for its newest head: {error.message}")
        return False
    return True


def _read_topic(verifier: "AuditVerifier") -> None:
    """Read all of the topic, by a process of its own: it needs Kafka's driver, which the client alone has not."""
    import subprocess
    import sys

    from constitution.errors import UnavailableError
    from constitution_client.exit_codes import ExitCode
    from constitution_client.importable import require_importable
    from constitution_client.settings import UsageError, variables

    require_importable(
        NEEDED,
        "reading the topic needs Kafka's driver",
        hint="role client audit verify  # in the image, or in a checkout after: make sync; or give --file",
    )
    command = [sys.executable, "-m", "deploy.audit_topic"]
    with subprocess.Popen(  # noqa: S603 - our own module
        command, env=variables(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        if process.stdout is None or process.stderr is None:
            raise RuntimeError("a process without pipes")
        ended = False
        for line in process.stdout:
            ended = ended or not line.strip()
            if line.strip():
                verifier.add(line)
            if ended and verifier.highest >= verifier.head_sequence:
                process.kill()  # all that was signed has been read
                return
        said = process.stderr.read().decode("utf-8", "replace").strip()
    if process.returncode == ExitCode.UNAVAILABLE:
        raise UnavailableError(said or "Kafka does not answer", hint="KAFKA_BOOTSTRAP_SERVERS says where it is")
    if process.returncode:
        raise UsageError(said or "the topic could not be read")
