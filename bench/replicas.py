"""``python -m bench.replicas FIRST COUNT ENVIRONMENT_FILE SERVICE_URL PORT``: many replicas in one process.

Each replica has a loopback address of its own (127.1.x.y, one port), its own listening socket and its own id, and
answers as a policy engine does: ``POST /v1/policy/refresh`` verifies the caller's token against the trust policy and
its scope (services.common.auth), and says in a ``PolicyStatus`` what is obeyed. It is served by uvicorn with the
protocol class and settings of our services. What is obeyed is read from a real constitution-service and verified as
every consumer does it (constitution_follow.Following).

What such a replica does not do: it does not fetch and verify the document itself. One follower does that for all of a
process, because thousands of replicas have thousands of machines' processors elsewhere, and here they share two with
their asker. It decides no request, follows no Kafka, and has none of FastAPI's layers.

SIGUSR1: from now on one in a hundred is behind: its next two answers say that it obeys nothing yet, which is what a
replica says that has not read the release. SIGUSR2: nobody is behind.
"""

import asyncio
import signal
import socket
import sys
from collections import Counter
from pathlib import Path
from typing import Final

import uvicorn
from fastapi.security import HTTPAuthorizationCredentials
from prometheus_client import CollectorRegistry
from starlette.types import Receive, Scope, Send

from adapters.environment_config import EnvironmentConfig, load_environment_config
from constitution.errors import ForbiddenError
from constitution_follow.following import Following, Source
from constitution_follow.replica import Replica
from services.common.auth import check_token
from services.common.deadlines import DeadlinedProtocol

LATE_EVERY: Final = 100
LATE_ANSWERS: Final = 2
_TEXT: Final = [(b"content-type", b"text/plain")]


def address(number: int) -> str:
    """Return the loopback address of a replica."""
    return f"127.1.{number // 250}.{number % 250 + 1}"


def name(number: int) -> str:
    """Return the id of a replica."""
    return f"engine-{number:06d}"


class Replicas:
    """The application of all replicas of this process; the address that was called says which one answers."""

    def __init__(self, names: dict[str, str], config: EnvironmentConfig, replica: Replica) -> None:
        self._names = names
        self._config = config
        self._replica = replica
        self._late: Counter[str] = Counter()

    def lag(self) -> None:
        """Let some be behind."""
        self._late = Counter(dict.fromkeys(list(self._names.values())[::LATE_EVERY], LATE_ANSWERS))

    def keep_up(self) -> None:
        """Let nobody be behind."""
        self._late.clear()

    async def __call__(self, scope: Scope, _receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) != ("POST", "/v1/policy/refresh"):
            await _answer(send, 404, b"")
            return
        kind, _, token = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1").partition(" ")
        try:
            check_token(self._config, HTTPAuthorizationCredentials(scheme=kind, credentials=token), "policy:refresh")
        except ForbiddenError as error:
            await _answer(send, 403, error.message.encode())
            return
        target = self._names[scope["server"][0]]
        status = self._replica.status().model_copy(update={"target": target})
        if self._late[target] > 0:
            self._late[target] -= 1
            nothing = {
                "generation": 0,
                "version": None,
                "checksum": None,
                "loaded_at": None,
                "state": "no_constitution",
            }
            status = status.model_copy(update=nothing)
        await _answer(send, 200, status.model_dump_json().encode())


async def _answer(send: Send, status: int, body: bytes) -> None:
    kind = _TEXT if status != 200 else [(b"content-type", b"application/json")]
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [*kind, length]})
    await send({"type": "http.response.body", "body": body})


def _listening(host: str, port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((host, port))
    return listener


async def serve(first: int, count: int, environment_file: Path, service: str, port: int) -> None:
    """Answer until SIGTERM."""
    config = load_environment_config(environment_file)
    numbers = range(first, first + count)
    source = Source(service=service, trust=config.holder, target=name(first))
    following = Following(source, CollectorRegistry(), prefix="policy_engine")
    async with following.running() as replica:
        await replica.refresh()
        app = Replicas({address(number): name(number) for number in numbers}, config, replica)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR1, app.lag)
        loop.add_signal_handler(signal.SIGUSR2, app.keep_up)
        settings = uvicorn.Config(
            app,
            http=DeadlinedProtocol,
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(settings)
        await server.serve([_listening(address(number), port) for number in numbers])


if __name__ == "__main__":
    start, many, file, url, listen = sys.argv[1:]
    asyncio.run(serve(int(start), int(many), Path(file), url, int(listen)))
