"""The five servers of a private Sigstore, on loopback alone; started on request: `make up SIGSTORE=1`."""

import json
import sys
from abc import abstractmethod
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from deploy.embedded.server import Command, NotAnswering, Server
from deploy.embedded.sigstore.programs import programs
from deploy.embedded.stack_directory import CHECKOUT, write_private

if TYPE_CHECKING:
    from deploy.embedded.sigstore.material import Material

FOLDER = "sigstore"  # of the stack: keys, people, and what clients are given
ORIGIN = "rekor.private"  # the signature log's name in its checkpoints
CI_URL = "https://ci.private.invalid"  # of the CI system whose jobs the issuer vouches for


class SigstoreServer(Server):
    """What the five share."""

    def url(self, server: str) -> str:
        """The address of one of the five."""
        return f"http://127.0.0.1:{self.directory.port(server)}"

    def material(self) -> "Material":
        """The keys of this stack."""
        from deploy.embedded.sigstore.material import Material  # noqa: PLC0415 - cryptography: a tenth of a second

        return Material.made(self.directory.data(FOLDER) / "keys")

    def key(self, name: str) -> str:
        """The path of a file of `material`."""
        return str(self.material().file(name))

    def settings(self) -> dict[str, str]:
        """Most have none."""
        return {}

    def urls(self) -> dict[str, str]:
        """Its address."""
        return {self.name: self.url(self.name)}

    async def prepare(self) -> None:
        """Make the keys: whichever server is first."""
        self.material()

    async def check(self) -> None:
        """Ask for what it always has."""
        from deploy.embedded.loopback import loopback  # noqa: PLC0415 - not needed by a stack without it

        async with loopback(5) as client:
            answer = await client.get(f"{self.url(self.name)}{self.probe()}")
        if not answer.is_success:
            raise NotAnswering(f"GET {self.probe()} answers {answer.status_code}")

    @abstractmethod
    def probe(self) -> str:
        """The path that `check` asks for."""


class GoServer(SigstoreServer):
    """One that is built from the Go module."""

    program: ClassVar[str]
    # Its first build waits for the other servers' on a busy machine.
    start_deadline = timedelta(seconds=90)

    def fetch(self) -> None:
        """Build all of them: five minutes, once."""
        programs(self.directory, self.say)

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> Command:
        """The program with its arguments; no secret among them."""
        argv = (str(programs(self.directory, self.say) / self.program), *arguments)
        return Command(argv=argv, environment=environment or {}, cwd=self.directory.data(self.name))


class Issuer(SigstoreServer):
    """The login."""

    name = "sigstore-issuer"

    async def prepare(self) -> None:
        """Make the keys, and the list of people, which a person may edit."""
        from constitution_client.ceremony import PEOPLE  # noqa: PLC0415 - brings cryptography that servers do not need
        from deploy.embedded.development import email_of  # noqa: PLC0415 - as above

        await super().prepare()
        if not self._people().exists():
            people = [{"id": one.id, "name": one.name, "email": email_of(one.id)} for one in PEOPLE]
            write_private(self._people(), json.dumps(people, indent=1))

    def _people(self) -> Path:
        return self.directory.data(FOLDER) / "people.json"

    def command(self) -> Command:
        """A module of ours; its secrets travel in the environment."""
        environment = {
            "PORT": str(self.directory.port(self.name)),
            "ISSUER_KEY_FILE": self.key("issuer.jwk"),
            "PEOPLE_FILE": str(self._people()),
            "LOGIN_PASSWORD": self.directory.secret("sigstore-login"),
            "CI_SECRET": self.directory.secret("sigstore-ci"),
            "PYTHONUNBUFFERED": "1",
        }
        return Command(
            argv=(sys.executable, "-m", "deploy.embedded.sigstore.issuer"), environment=environment, cwd=CHECKOUT
        )

    def probe(self) -> str:
        """Its keys."""
        return "/keys"

    def settings(self) -> dict[str, str]:
        """Its address, and what people and CI jobs show it."""
        return {
            "SIGSTORE_ISSUER_URL": self.url(self.name),
            "SIGSTORE_LOGIN_PASSWORD": self.directory.secret("sigstore-login"),
            "SIGSTORE_CI_SECRET": self.directory.secret("sigstore-ci"),
        }


class CertificateLog(GoServer):
    """TesseraCT: each certificate is in it before it is used."""

    name = "sigstore-ctlog"
    program = "ctlog"

    def command(self) -> Command:
        """Over a folder; it accepts certificates of our own authority alone."""
        tiles = self.directory.data(self.name) / "log"
        tiles.mkdir(mode=0o700, exist_ok=True)
        return self.run(
            f"--http_endpoint=127.0.0.1:{self.directory.port(self.name)}",
            "--origin=127.0.0.1",  # what requests must begin with: host and path
            f"--private_key={self.key('ctlog.key')}",
            f"--roots_pem_file={self.key('fulcio.pem')}",
            "--storage_dir=log",
            "--enable_publication_awaiter=false",  # it promises, and integrates within a second
            # It pushes metrics to a collector on this machine, which there is none of: once a day is never.
            environment={"OTEL_METRIC_EXPORT_INTERVAL": "86400000"},
        )

    def probe(self) -> str:
        """The authorities that it accepts."""
        return "/ct/v1/get-roots"


class CertificateAuthority(GoServer):
    """Fulcio: a certificate of ten minutes for whoever the issuer vouches for."""

    name = "sigstore-fulcio"
    program = "fulcio"
    after = (Issuer.name, CertificateLog.name)

    async def before_start(self) -> None:
        """Write whose tokens it takes, and what clients are given."""
        from deploy.embedded.sigstore.trust_config import (  # noqa: PLC0415 - as above
            signing_config,
            trust_config,
            trusted_root,
        )

        write_private(self._config(), fulcio_config(self.url(Issuer.name)))
        urls = {
            "fulcio": self.url(self.name),
            "ctlog": self.url(CertificateLog.name),
            "rekor": self.url(SignatureLog.name),
            "timestamps": f"{self.url(TimestampAuthority.name)}/api/v1/timestamp",
            "issuer": self.url(Issuer.name),
        }
        root = trusted_root(self.material(), urls, ORIGIN)
        signing = signing_config(urls, self.material().authority.not_valid_before_utc)
        for name, content in (
            ("trusted_root", root),
            ("signing_config", signing),
            ("trust_config", trust_config(root, signing)),
        ):
            write_private(self._given(name), json.dumps(content, indent=1))

    def _config(self) -> Path:
        return self.directory.data(self.name) / "config.yaml"

    def _given(self, name: str) -> Path:
        return self.directory.data(FOLDER) / f"{name}.json"

    def command(self) -> Command:
        """Our main over Fulcio's own parts."""
        return self.run(
            f"--address=127.0.0.1:{self.directory.port(self.name)}",
            f"--config={self._config()}",
            f"--certificate={self.key('fulcio.pem')}",
            f"--key={self.key('fulcio.key')}",
            f"--log={self.url(CertificateLog.name)}",
            f"--log-key={self.key('ctlog.pem')}",
        )

    def probe(self) -> str:
        """Its certificate."""
        return "/api/v2/trustBundle"

    def settings(self) -> dict[str, str]:
        """What signs, and what a trust policy pins."""
        return {
            "SIGSTORE_TRUST_CONFIG_FILE": str(self._given("trust_config")),
            "SIGSTORE_TRUSTED_ROOT_FILE": str(self._given("trusted_root")),
        }


class SignatureLog(GoServer):
    """Rekor v2: every signature is in it."""

    name = "sigstore-rekor"
    program = "rekor"

    def command(self) -> Command:
        """Over a folder."""
        tiles = self.directory.data(self.name) / "log"
        tiles.mkdir(mode=0o700, exist_ok=True)
        return self.run(
            "serve",
            f"--http-port={self.directory.port(self.name)}",
            f"--grpc-port={self.directory.port(f'{self.name}-grpc')}",
            f"--http-metrics-port={self.directory.port(f'{self.name}-metrics')}",
            f"--hostname={ORIGIN}",
            f"--signer-filepath={self.key('rekor.key')}",
            "--storage-dir=log",
            "--checkpoint-interval=200ms",  # a signer waits for the next one
            "--batch-max-age=50ms",
            "--log-level=warn",
        )

    def probe(self) -> str:
        """Its health."""
        return "/healthz"


class TimestampAuthority(GoServer):
    """RFC 3161: when a signature was made, for a certificate that has long ended when it is verified."""

    name = "sigstore-timestamps"
    program = "timestamps"

    def command(self) -> Command:
        """Our main over the authority's own parts."""
        return self.run(
            f"--port={self.directory.port(self.name)}",
            f"--chain={self.key('timestamps.pem')}",
            f"--key={self.key('timestamps.key')}",
        )

    def probe(self) -> str:
        """Whether it answers."""
        return "/ping"


def fulcio_config(issuer: str) -> str:
    """Return whose tokens Fulcio takes: people's by e-mail address, CI jobs' by workflow, repository and ref.

    JSON is YAML; the comment makes it no JSON, of which Fulcio would expect other names.

    Args:
        issuer: address of the login; that of CI jobs is below it.
    """
    content = {
        "oidc-issuers": {
            issuer: {"issuer-url": issuer, "client-id": "sigstore", "type": "email"},
            f"{issuer}/ci": {
                "issuer-url": f"{issuer}/ci",
                "client-id": "sigstore",
                "type": "ci-provider",
                "ci-provider": "private",
            },
        },
        "ci-issuer-metadata": {
            "private": {
                "default-template-values": {"url": CI_URL},
                "extension-templates": {
                    "source-repository-uri": "{{ .url }}/{{ .repository }}",
                    "source-repository-ref": "ref",
                },
                "subject-alternative-name-template": "{{ .url }}/{{ .job_workflow_ref }}",
            }
        },
    }
    return "# Written at each start.\n" + json.dumps(content, indent=1)


SIGSTORE: tuple[type[Server], ...] = (Issuer, CertificateLog, CertificateAuthority, SignatureLog, TimestampAuthority)
SIGSTORE_NAMES = tuple(server.name for server in SIGSTORE)
