"""How each peer runs the calls: as a bare script, as a DBOS workflow, as a Prefect flow.

Each keeps what it is made to keep: the bare script nothing, DBOS every step's result in PostgreSQL, Prefect every
task's state in its server and every result in a file (``persist_result``), so that a run could go on after a crash.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

import httpx

from bench.peers.calls import Given, Json, Step, go_live
from deploy.embedded.ports import Ports

Release = Callable[[Json], Awaitable[Json]]
START_S: Final = 120.0


@asynccontextmanager
async def bare(step: Step, _scratch: Path) -> AsyncIterator[Release]:
    """One call after the other."""

    async def release(given: Json) -> Json:
        return await go_live(step, Given.model_validate(given))

    yield release


@asynccontextmanager
async def dbos(step: Step, _scratch: Path) -> AsyncIterator[Release]:
    """A DBOS workflow whose steps are the calls."""
    from dbos import DBOS  # noqa: PLC0415 - one of three is used, and only its own library is loaded

    DBOS(
        config={"name": "constitution-bench", "system_database_url": os.environ["DBOS_URL"], "run_admin_server": False}
    )

    @DBOS.step()
    async def call(name: str, argument: Json, run: Json) -> Json:
        return await step(name, argument, run)

    @DBOS.workflow()
    async def release(given: Json) -> Json:
        return await go_live(call, Given.model_validate(given))

    DBOS.launch()
    try:
        yield release
    finally:
        DBOS.destroy()


@asynccontextmanager
async def prefect(step: Step, scratch: Path) -> AsyncIterator[Release]:
    """A Prefect flow whose tasks are the calls, at a Prefect server."""
    ports = Ports()
    port = ports.any()
    os.environ |= {
        "PREFECT_HOME": str(scratch / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "WARNING",
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    with (scratch / "prefect.log").open("wb") as log:
        server = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
    try:
        await _until_it_answers(f"http://127.0.0.1:{port}/api/health")
        from prefect import flow, task  # noqa: PLC0415 - reads the settings above

        @task(persist_result=True)
        async def call(name: str, argument: Json, run: Json) -> Json:
            return await step(name, argument, run)

        @flow(persist_result=True)
        async def release(given: Json) -> Json:
            return await go_live(call, Given.model_validate(given))

        yield release
    finally:
        server.terminate()
        await server.wait()
        ports.close()


async def _until_it_answers(url: str) -> None:
    async with asyncio.timeout(START_S), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                if (await http.get(url)).status_code == httpx.codes.OK:
                    return
            except httpx.HTTPError:
                pass
            await asyncio.sleep(0.2)


ENGINES: Final[dict[str, Callable[[Step, Path], AbstractAsyncContextManager[Release]]]] = {
    "bare": bare,
    "dbos": dbos,
    "prefect": prefect,
}
