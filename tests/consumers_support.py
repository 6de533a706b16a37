"""Starts consumers as real processes, and makes what they follow: an environment with its people, keys and releases."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from constitution.checksum import checksum_of
from constitution.policy.consumer_api import PolicyStatus
from constitution.release import CurrentConstitution, Kind, ReleasePredicate
from constitution_client.ceremony import make_trust
from signatures.openpgp import sign_detached
from signatures.statements import sign_release
from signatures.tokens import ClientKey, mint
from tests.helpers import eventually, whole_lines
from tests.ports import free_port

CHECKOUT = Path(__file__).resolve().parents[1]
ENVIRONMENT = "development"
START = timedelta(seconds=30)  # importing a service takes seconds on a busy machine


class Process:
    """A Python process that dies with the test process.

    Args:
        arguments: after ``python``.
        settings: its whole environment, besides PATH.
    """

    def __init__(self, arguments: Iterable[str], settings: Mapping[str, str], log: Path) -> None:
        self._arguments = list(arguments)
        self._settings = dict(settings)
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(  # noqa: S603 - our own code
                ["setpriv", "--pdeathsig", "KILL", sys.executable, *self._arguments],  # noqa: S607 - util-linux
                cwd=CHECKOUT,
                env={"PATH": os.environ["PATH"], **self._settings},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        return self.process.wait(20)

    def output(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""


class Service(Process):
    """A service of ours, as ``python -m services.NAME``."""

    def __init__(self, name: str, settings: Mapping[str, str], log: Path, *, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        super().__init__(["-m", f"services.{name}"], {"HOST": "127.0.0.1", "PORT": str(self.port), **settings}, log)

    async def healthy(self) -> Self:
        """Wait until it answers ``/healthz``."""
        async with httpx.AsyncClient(trust_env=False) as http:

            async def answers() -> bool:
                assert self.process is not None
                assert self.process.poll() is None, f"it ended: {self.output()[-2000:]}"
                try:
                    return (await http.get(f"{self.url}/healthz")).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, START)
        return self

    async def ready(self) -> Self:
        """Wait until ``/readyz`` is 200."""
        await self.healthy()
        async with httpx.AsyncClient(trust_env=False) as http:

            async def is_ready() -> bool:
                answer = await http.get(f"{self.url}/readyz")
                assert answer.status_code == 200, answer.text
                return True

            await eventually(is_ready, START)
        return self

    async def policy(self) -> PolicyStatus:
        async with httpx.AsyncClient(trust_env=False) as http:
            answer = await http.get(f"{self.url}/v1/policy")
        assert answer.status_code == 200, answer.text
        return PolicyStatus.model_validate_json(answer.content)

    async def metric(self, name: str, **labels: str) -> float:
        """Sum of the series of that name whose labels include ``labels``; 0 when there is none."""
        from prometheus_client.parser import text_string_to_metric_families

        async with httpx.AsyncClient(trust_env=False) as http:
            text = (await http.get(f"{self.url}/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )


@dataclass(frozen=True)
class Land:
    """An environment: who is trusted, and what they can sign."""

    directory: Path
    tenants: tuple[str, ...] = ("global", "acme")

    @classmethod
    def found(cls, directory: Path, environment: str = ENVIRONMENT) -> "Land":
        """Hold the key ceremony and write ``environment.toml``."""
        make_trust(directory, environment)
        land = cls(directory)
        tenants = ", ".join(f'"{tenant}"' for tenant in land.tenants)
        land.environment_file.write_text(
            f'environment = "{environment}"\ntenants = [{tenants}]\ngate = "gate"\n', encoding="utf-8"
        )
        return land

    @property
    def environment_file(self) -> Path:
        return self.directory / "environment.toml"

    def key_file(self, name: str) -> Path:
        return self.directory / "keys" / f"{name}.jwk"

    def key(self, name: str) -> ClientKey:
        return ClientKey.load(self.key_file(name))

    def person(self, name: str) -> bytes:
        return (self.directory / "keys" / f"{name}.tsk").read_bytes()

    def token(self, scope: str, client: str = "target", environment: str = ENVIRONMENT) -> dict[str, str]:
        """Headers of a call that needs ``scope``."""
        minted = mint(self.key(client), environment=environment, scopes=[scope], now=datetime.now(UTC))
        return {"Authorization": f"Bearer {minted}"}

    def current(
        self,
        generation: int,
        text: bytes | None,
        *,
        environment: str = ENVIRONMENT,
        ring: str = "default",
        signing_key: Ed25519PrivateKey | None = None,
        keyid: str = "constitution-service",
        signers: tuple[str, ...] = ("mara",),
        withdraws: bytes = b"",
    ) -> CurrentConstitution:
        """What constitution-service would answer, signed with its key (or with another, which is a forgery).

        Without ``text`` it is a withdrawal of ``withdraws``.
        """
        signatures = [] if text is None else [sign_detached(text, self.person(name)) for name in signers]
        moment = datetime.now(UTC)
        fields: dict[str, Any] = {
            "environment": environment,
            "generation": generation,
            "kind": Kind.WITHDRAW if text is None else Kind.UPDATE,
            "version": None if text is None else json.loads(text)["version"],
            "checksum": None if text is None else checksum_of(text),
            "effective_at": moment,
        }
        predicate = ReleasePredicate(
            **fields,
            rings=(ring,),
            previous=checksum_of(withdraws) if text is None else None,
            signatures=tuple(checksum_of(data) for data in signatures),
            update_id="00000000-0000-4000-8000-000000000000",
        )
        key = signing_key or self.key("constitution-service").private_key
        return CurrentConstitution(
            **fields,
            document=None if text is None else text.decode(),
            signatures=tuple(base64.b64encode(data).decode() for data in signatures),
            statement=sign_release(predicate, keyid, key),
        )


def rule(identifier: str, effect: str, when: str, severity: str = "medium") -> dict[str, str]:
    """A rule of a document."""
    return {
        "id": identifier,
        "principle": "care",
        "effect": effect,
        "when": when,
        "severity": severity,
        "message": f"rule {identifier} applies",
    }


RULES = (
    rule("no-secrets", "deny", 'data_class == "secret"', "critical"),
    rule("large-sums", "require_approval", "amount > 1000.0", "high"),
    rule("reading", "allow", 'action == "read"', "low"),
    rule("acme-at-night", "deny", 'tenant == "acme" && time.getHours() < 6', "medium"),
    rule("fragile", "deny", 'action == "divide" && 1 / int(amount) > 0', "medium"),
)


def document(
    version: str,
    rules: Iterable[Mapping[str, str]] = RULES,
    *,
    environment: str = ENVIRONMENT,
    previous: tuple[str, str] | None = None,
    default_effect: str = "deny",
    lifetime: timedelta = timedelta(days=90),
) -> bytes:
    """A constitution's exact bytes."""
    now = datetime.now(UTC).replace(microsecond=0)
    content = {
        "schema_version": 1,
        "environment": environment,
        "version": version,
        "title": f"Constitution {version}",
        "summary": f"What agents may do, in version {version}.",
        "issued_at": (now - timedelta(days=1)).isoformat(),
        "expires_at": (now + lifetime).isoformat(),
        "previous": None if previous is None else {"version": previous[0], "checksum": previous[1]},
        "principles": [{"id": "care", "text": "Agents act with care."}],
        "rules": list(rules),
        "default_effect": default_effect,
    }
    return json.dumps(content, indent=1).encode()


class AnswerServer(Process):
    """tests/answer_server.py as a process: answers what the test has put there."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        script = str(CHECKOUT / "tests" / "answer_server.py")
        super().__init__([script, str(self.port), str(directory)], {}, directory / "log")

    def answer(self, current: CurrentConstitution | bytes, *, status: int = 200, etag: str = "") -> None:
        """Answer so from now on."""
        body = current if isinstance(current, bytes) else current.model_dump_json().encode()
        fresh = self.directory / "answer.new"
        fresh.write_bytes(f"{status}\n{etag}\n".encode() + body)
        fresh.replace(self.directory / "answer")

    def absent(self) -> None:
        """Answer that there is no constitution."""
        problem = {
            "type": "urn:somaagenthub:problem:no-constitution",
            "title": "Not Found",
            "status": 404,
            "detail": "there is no release yet",
            "code": "no-constitution",
        }
        self.answer(json.dumps(problem).encode(), status=404)

    def requests(self) -> list[str]:
        """The paths that a consumer asked for, in their order."""
        return [line for line in whole_lines(self.directory / "requests") if line.startswith("/v1/")]

    async def listening(self) -> Self:
        async with httpx.AsyncClient(trust_env=False) as http:

            async def answers() -> bool:
                try:
                    await http.get(f"{self.url}/hello")
                except httpx.TransportError:
                    return False
                return True

            await eventually(answers, START)
        return self
