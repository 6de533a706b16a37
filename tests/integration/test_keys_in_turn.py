"""On one running service, one kind of key after the other is lost or stolen; a release goes through after each."""

from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from constitution.api import LoadResult
from constitution.errors import ConstitutionError, ForbiddenError, UntrustedError
from constitution.trust.attestation import GatePredicate
from tests.helpers import eventually
from tests.unit.trust_chain import person
from tests.world.author import Author
from tests.world.documents import following
from tests.world.environment import ServiceEnvironment
from tests.world.trust import entry, new_client_key, new_key, next_version


class Story:
    """Makes releases, and exchanges keys between them; nothing is restarted.

    Args:
        running: a running constitution-service, and everybody's keys.
    """

    def __init__(self, running: ServiceEnvironment) -> None:
        self.running, self.files, self.author = running, running.files, running.author
        self._last: LoadResult | None = None
        self._version = 1

    async def release(self) -> None:
        """Draft, sign, push, test, approve, load and confirm the next version; consumers verify what is served."""
        generation = 0 if self._last is None else self._last.generation
        previous = None if self._last is None else following(self._last)
        document = self.author.draft(f"1.{generation}.0", previous)
        self._last = await self.author.confirmed(document, expected_generation=generation)
        served = await self.author.current()
        assert served is not None
        assert served.generation == generation + 1

    async def install(self, *edits: tuple[str, str], **more: object) -> None:
        """Put the next version of the trust policy in force."""
        next_version(self.files, *edits, **more)  # type: ignore[arg-type]
        self._version += 1

        async def taken() -> bool:
            return await self.running.service.metric("trust_policy_version") == self._version

        await eventually(taken)

    async def exchange(self, *people: str, by: tuple[str, ...]) -> None:
        """Give people new keys, in the place of their old ones."""
        edits: list[tuple[str, str]] = []
        certificates: dict[str, bytes] = {}
        for name in people:
            held = entry(self.files, "people", name).partition("openpgp = ")[2].partition("\n")[0]
            added, certificate = new_key(self.files, name)
            edits.append((held, f"[{added}]"))
            certificates |= certificate
        await self.install(*edits, certificates=certificates, by=by)

    async def exchange_pinned(self, table: str, name: str) -> str:
        """Give a service, client or assessor a new key; return the old one's file."""
        old = self.files.key_file(name).read_text()
        held = entry(self.files, table, name).split('public_key = "')[1].split('"')[0]
        await self.install((held, new_client_key(self.files, name).public_text()))
        return old


async def a_lost_maintainer(story: Story) -> None:
    old = story.author.sign(story.author.draft("9.0.0"))
    await story.exchange("mara", by=("alva", "bruno"))
    with pytest.raises(UntrustedError, match="no signature of this document counts"):
        await story.author.worker.push(story.author.draft("9.0.0"), [old])


async def a_lost_board_member(story: Story) -> None:
    document = story.author.draft("9.1.0")
    checksum = await story.author.push(document)
    request = await story.author.ask(checksum)
    stolen = story.author.denial(request, checksum, "alva", version="9.1.0")
    await story.exchange("alva", by=("bruno", "chen"))
    with pytest.raises(ConstitutionError, match="is not in the trust policy"):
        await story.author.worker.deny(request, stolen)


async def a_stolen_operator(story: Story) -> None:
    update = str(uuid4())
    stolen = story.author.order_request(update, "hold", "olga", reason="not olga")
    await story.exchange("olga", by=("alva", "bruno"))
    with pytest.raises(ConstitutionError, match="is not in the trust policy"):
        await story.author.worker.accept_order(stolen)
    await story.author.worker.accept_order(story.author.order_request(update, "hold", "olga", reason="olga"))


async def a_stolen_assessor(story: Story) -> None:
    document = story.author.draft("9.2.0")
    record = await story.author.record(document, await story.author.ask(await story.author.push(document)))
    seen = GatePredicate.of(record, await story.author.assessor.put_evidence(record))
    stolen = await story.exchange_pinned("assessors", "assessor")
    mine = story.files.key_file("assessor").read_text()
    story.files.key_file("assessor").write_text(stolen)
    with pytest.raises(UntrustedError, match="does not verify"):
        await story.author.attest(seen)
    story.files.key_file("assessor").write_text(mine)
    await story.author.attest(seen)


async def a_stolen_token_key(story: Story) -> None:
    stolen = story.author
    await story.exchange_pinned("clients", "worker")
    with pytest.raises(ForbiddenError):
        await stolen.push(stolen.draft("9.3.0"))
    story.author = Author(story.files, story.running.service.url)


async def a_board_that_is_lost_whole(story: Story) -> None:
    """The offline root alone names another board."""
    secret, vera, certificate = person("vera", "root")
    (story.files.directory / "keys" / "vera.tsk").write_bytes(secret)
    rooted = (("[thresholds]\n", "[thresholds]\nroot = 1\n"), ("[[people]]", f"{vera}\n[[people]]"))
    await story.install(*rooted, certificates=certificate, by=("alva", "bruno", "vera"))
    await story.exchange("alva", "bruno", "chen", by=("vera",))


TURNS: tuple[Callable[[Story], Awaitable[None]], ...] = (
    a_lost_maintainer,
    a_lost_board_member,
    a_stolen_operator,
    a_stolen_assessor,
    a_stolen_token_key,
    a_board_that_is_lost_whole,
)


@pytest.mark.slow
async def test_each_key_in_turn_is_lost_or_stolen_and_releases_go_on(service_environment: ServiceEnvironment) -> None:
    story = Story(service_environment)
    await story.release()
    for turn in TURNS:
        await turn(story)
        await story.release()
    if story.author is not service_environment.author:
        await story.author.aclose()
