"""A second process of each role beside the environment's first, and a restart of either as a deploy does it."""

import asyncio
from pathlib import Path

from tests.ports import free_port
from tests.workflow import deploys
from tests.world.environment import RunningEnvironment
from tests.world.files import CHECKOUT
from tests.world.forks import settings_of
from tests.world.processes import POLLS, Process, Service

DRAINED = "ended with exit code 0"


class Replica:
    """The second process of a role, with the settings of the first and these.

    Args:
        env: whose first process it stands beside.
        name: of the first.
        module: of a service; None for the worker and the assessor.
        settings: that it has of its own.
    """

    def __init__(self, env: RunningEnvironment, name: str, module: str | None, **settings: str) -> None:
        statuses = {status.name: status.pid for status in env.stack.status()}
        first = statuses[name]
        assert first is not None
        self._settings = settings_of(first) | settings
        self._folder = env.directory / "log"
        self._name, self._module = name, module
        self._lives = 0
        self.port = free_port()
        self._settings.pop("PORT", None)

    async def start(self) -> None:
        """Start it, and wait until it is healthy: ready, or polling."""
        self._lives += 1
        log: Path = self._folder / f"{self._name}-second-{self._lives}.log"
        if self._module is not None:
            self._process: Process = await Service(self._module, self._settings, log, port=self.port).start().ready()
        else:
            given = {**self._settings, "METRICS_PORT": str(self.port)}
            process = Process([str(CHECKOUT / f"{self._name}.py")], given, log).start()
            self._process = await process.says(f"{self._name}: polling", POLLS)

    async def stop(self) -> None:
        """SIGTERM; it must drain and end with exit code 0."""
        code = await asyncio.to_thread(self._process.stop)
        assert code == 0, f"{self._name} ended with exit code {code}: {self._process.output()[-2000:]}"

    def kill(self) -> None:
        """Leave nothing behind."""
        if self._lives:
            self._process.kill()

    async def restart(self) -> None:
        """Stop it, start it, and wait until it is healthy."""
        await self.stop()
        await self.start()


async def restart_first(env: RunningEnvironment, name: str) -> None:
    """The same with the environment's own process of that name."""
    await deploys.terminate(env, name)
    assert await deploys.ended(env, name) == DRAINED
    await env.restart(name)  # returns when it answers
