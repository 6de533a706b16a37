"""Whoever has no token may ask what could go live, and cannot keep the service from those who have one."""

import asyncio

import httpx

from tests.constitution_service_support import Author
from tests.helpers import eventually

CROWD = 12
PATTERNS = " || ".join(f"prompt.matches('a{n}[a-z]{{1,50}}b')" for n in range(20))


def heavy(author: Author) -> bytes:
    """A document whose judging takes seconds, and ends in a refusal."""
    rule = {"principle": "care", "effect": "deny", "when": PATTERNS, "severity": "high", "message": "no"}
    return author.draft("1.0.0", rules=[{"id": f"rule-{n}", **rule} for n in range(200)])


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
