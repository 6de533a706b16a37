"""Whoever has no token may ask what could go live, and cannot keep the service from those who have one."""

import asyncio
from pathlib import Path

import httpx
import pytest

from services.common.limits import HELD
from tests.helpers import eventually
from tests.world.author import Author
from tests.world.processes import Service

CROWD = 12
ENDLESS = 12 * 1024 * 1024  # bytes of each body that never ends
PART = 64 * 1024
PATTERNS = " || ".join(f"prompt.matches('a{n}[a-z]{{1,50}}b')" for n in range(20))


def heavy(author: Author) -> bytes:
    """A document whose judging takes seconds, and ends in a refusal."""
    rule = {"principle": "care", "effect": "deny", "when": PATTERNS, "severity": "high", "message": "no"}
    return author.draft("1.0.0", rules=[{"id": f"rule-{n}", **rule} for n in range(200)])


@pytest.mark.slow
async def test_a_crowd_of_strangers_is_sent_away_and_nobody_with_a_token_waits_behind_it(author: Author) -> None:
    document = heavy(author)
    answers: list[httpx.Response] = []
    async with httpx.AsyncClient(base_url=author.http.base_url, timeout=120) as http:

        async def ask() -> None:
            answers.append(await http.post("/v1/constitution/validate", files={"document": document}))

        crowd = [asyncio.create_task(ask()) for _ in range(CROWD)]

        def sent_away() -> list[httpx.Response]:
            return [answer for answer in answers if answer.status_code == 503]

        await eventually(lambda: len(sent_away()) >= 3)
        good = author.draft("1.0.0")
        known = await author.worker.validate_files(good, [author.sign(good)])
        waiting = sum(not task.done() for task in crowd)
        await asyncio.gather(*crowd)

    assert known.valid
    assert waiting >= 2
    assert {answer.status_code for answer in answers} == {200, 503}
    assert not any(answer.json()["valid"] for answer in answers if answer.status_code == 200)
    assert {answer.headers["Retry-After"] for answer in sent_away()} == {"1"}
    assert "artifacts:write" in sent_away()[0].json()["hint"]


async def test_a_stranger_alone_is_answered_and_a_bad_token_is_as_good_as_none(author: Author) -> None:
    good = author.draft("1.0.0")
    files = {"document": good, "signature": author.sign(good)}
    for headers in ({}, {"Authorization": "Bearer nonsense"}):
        answer = await author.http.post("/v1/constitution/validate", files=files, headers=headers)
        assert (answer.status_code, answer.json()["valid"]) == (200, True)


def resident(process: Service) -> int:
    """The most memory that a process ever had, in bytes."""
    assert process.process is not None
    lines = Path(f"/proc/{process.process.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


async def test_bodies_that_strangers_send_and_never_end_fill_no_memory(
    author: Author, constitution_service: Service
) -> None:
    before = resident(constitution_service)
    head = (
        "POST /v1/constitution/blobs HTTP/1.1\r\nHost: service\r\nContent-Type: application/octet-stream\r\n"
        f"Content-Length: {ENDLESS + 1}\r\n\r\n"
    ).encode()

    writers: list[asyncio.StreamWriter] = []

    async def send() -> bytes:
        """Return the status line that came before the body's end, or nothing."""
        reader, writer = await asyncio.open_connection("127.0.0.1", constitution_service.port)
        writers.append(writer)
        answer = asyncio.create_task(reader.readline())
        try:
            writer.write(head)
            for _ in range(0, ENDLESS, PART):
                writer.write(b"x" * PART)
                await writer.drain()
        except ConnectionError:
            return await answer
        if answer.done():
            return answer.result()
        answer.cancel()
        return b""

    try:
        answers = await asyncio.gather(*(send() for _ in range(2 * CROWD)))
        grown = resident(constitution_service) - before
        good = author.draft("1.0.0")
        assert await author.push(good)
    finally:
        for writer in writers:
            writer.close()
    refused = [line for line in answers if line]
    assert all(b" 503 " in line for line in refused)
    assert len(refused) > CROWD
    assert grown < 2 * HELD, grown
