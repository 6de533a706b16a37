"""The channel is told once, whatever happens to the caller. Slack's API is an emulator here, and says so."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import ValidationError
from slack_sdk import WebClient

from activities.broadcast import Announcement, Broadcast, ProgressInput
from activities.ports import ActivityConfig
from adapters.ledger import PostgresLedger
from adapters.slack import EVENT_TYPE, IDS_FOR, SlackChannel
from constitution.api import UpdateState
from constitution.errors import ForbiddenError, NotFoundError
from constitution.messages import Outcome
from constitution.release import Kind, Standing
from constitution_client.service import ConstitutionServiceClient
from tests import resources
from tests.integration.activity_support import make_config, refused, run, update_plan_of
from tests.world.author import Author
from tests.world.documents import following
from tests.world.files import ENVIRONMENT, EnvironmentFiles
from tests.world.wire import Wire

HOSTILE = "<!channel> <https://evil.example|click> @everyone\n*Approvers*\u202e www.evil.example | a & b"


def deployed(environment_files: EnvironmentFiles, slack: resources.Slack, tmp_path: Path) -> ActivityConfig:
    made = make_config(environment_files, tmp_path, channel=f"#{slack.channel_name}")
    return replace(made, links={**made.links, "evil": "javascript:alert(1)"})


@pytest.fixture
def broadcast(
    slack: resources.Slack, ledger: PostgresLedger, environment_files: EnvironmentFiles, tmp_path: Path
) -> Broadcast:
    channel = SlackChannel(slack.token, slack.api_url)
    nobody = ConstitutionServiceClient("http://127.0.0.1:9", None, ENVIRONMENT)  # a refusal is told without the service
    return Broadcast(
        channel=channel, ledger=ledger, service=nobody, config=deployed(environment_files, slack, tmp_path)
    )


def announcement(**changes: Any) -> Announcement:
    return Announcement(
        key="update-1/rejected",
        environment=ENVIRONMENT,
        outcome="rejected",
        version="1.0.0",
        checksum="sha256:" + "0" * 64,
        summary="What changed",
        approvers=("alva", "bruno"),
        workflow_id="constitution-update/development/CR-1",
        run_id="run",
        update_id="00000000-0000-4000-8000-000000000001",
    ).model_copy(update=changes)


def messages(slack: resources.Slack) -> list[dict[str, Any]]:
    client = WebClient(slack.token, base_url=slack.api_url)
    said = client.conversations_history(channel=slack.channel, include_all_metadata=True, limit=100)
    found: list[dict[str, Any]] = said["messages"]
    return found


async def test_an_outcome_is_told_once_however_often_and_however_many_at_once(
    broadcast: Broadcast, slack: resources.Slack
) -> None:
    told = await asyncio.gather(*(run(broadcast.announce, announcement()) for _ in range(4)))
    assert len({(posted.channel_id, posted.ts) for posted in told}) == 1
    assert told[0].permalink
    (message,) = messages(slack)
    assert message["metadata"]["event_type"] == EVENT_TYPE
    assert message["metadata"]["event_payload"] == {"key": "update-1/rejected"}
    await run(broadcast.announce, announcement(key="update-2/rejected"))
    assert len(messages(slack)) == 2


async def test_a_message_whose_answer_was_lost_is_found_and_not_posted_again(
    broadcast: Broadcast, slack: resources.Slack
) -> None:
    wire = Wire(slack.api_url)
    with wire.holding("POST", "chat.postMessage", answered=True) as post:
        post.drop()
        cut = Broadcast(
            channel=SlackChannel(slack.token, wire.url + urlsplit(slack.api_url).path),
            ledger=broadcast._ledger,
            service=broadcast._service,
            config=broadcast._config,
        )
        failure = await refused(cut.announce, announcement())
        assert (failure.type, failure.non_retryable) == ("unavailable", False)
        await post.reached()
        (message,) = messages(slack)
        posted = await run(cut.announce, announcement())
    wire.close()
    assert posted.ts == message["ts"]
    assert len(messages(slack)) == 1


@pytest.mark.parametrize("archived", [True, False], ids=["archived", "renamed"])
async def test_a_name_that_is_given_to_another_channel_means_that_one(
    *,
    archived: bool,
    slack: resources.Slack,
    slack_settings: dict[str, str],
    ledger: PostgresLedger,
    environment_files: EnvironmentFiles,
    tmp_path: Path,
) -> None:
    ids_for = IDS_FOR if archived else timedelta(0)  # a refusal is enough; a rename alone is seen by the next look-up
    worker = Broadcast(
        channel=SlackChannel(slack.token, slack.api_url, ids_for),
        ledger=ledger,
        service=ConstitutionServiceClient("http://127.0.0.1:9", None, ENVIRONMENT),
        config=deployed(environment_files, slack, tmp_path),
    )
    before = await run(worker.announce, announcement())
    assert before.channel_id == slack.channel
    document = Author(environment_files, "http://127.0.0.1:1").draft("1.0.0")
    update = update_plan_of(document, "CR-1", channel=f"#{slack.channel_name}")
    first = await run(worker.post_progress, ProgressInput(update=update, lines=("started",)))
    admin = WebClient(slack_settings["SLACK_ADMIN_TOKEN"], base_url=slack.api_url)
    admin.conversations_rename(channel=slack.channel, name=f"old-{slack.channel_name}")
    if archived:
        admin.conversations_archive(channel=slack.channel)
    new = admin.conversations_create(name=slack.channel_name)["channel"]["id"]
    if archived:
        failure = await refused(worker.announce, announcement(key="update-2/rejected"))
        assert failure.type == "not-found"
    after = await run(worker.announce, announcement(key="update-2/rejected"))
    assert after.channel_id == new
    if archived:  # a progress message that cannot be edited any more is posted anew
        edit = ProgressInput(update=update, ts=first.ts, channel_id="C0GONE", lines=("started", "done"))
        assert (await run(worker.post_progress, edit)).channel_id == new


async def test_hostile_text_calls_nobody_and_links_nowhere(broadcast: Broadcast, slack: resources.Slack) -> None:
    await run(
        broadcast.announce,
        announcement(summary=HOSTILE, reason=HOSTILE, diff=(HOSTILE,), change_request=HOSTILE, approvers=(HOSTILE,)),
    )
    (message,) = messages(slack)
    assert "<!channel>" not in message["text"]
    assert "&lt;!channel&gt;" in message["text"]
    for block in message["blocks"]:
        for part in [block.get("text"), *block.get("fields", []), *block.get("elements", [])]:
            if part is None or part["type"] == "plain_text":
                continue
            assert part["verbatim"] is True
            assert "<!channel>" not in part["text"]
            assert "|click>" not in part["text"]
            assert "\u202e" not in part["text"]
    assert "javascript" not in str(message["blocks"])


async def test_progress_is_one_message_that_is_edited(
    broadcast: Broadcast, slack: resources.Slack, environment_files: EnvironmentFiles
) -> None:
    document = Author(environment_files, "http://127.0.0.1:1").draft("1.0.0")
    update = update_plan_of(document, "CR-1", channel=f"#{slack.channel_name}")
    first = await run(broadcast.post_progress, ProgressInput(update=update, lines=("started",)))
    assert await run(broadcast.post_progress, ProgressInput(update=update, lines=("started",))) == first
    edit = ProgressInput(update=update, ts=first.ts, channel_id=first.channel_id, lines=("started", "gate passed"))
    assert await run(broadcast.post_progress, edit) == first
    (message,) = messages(slack)
    assert "gate passed" in str(message["blocks"])


async def test_an_outcome_answers_the_progress_message_of_its_update(
    broadcast: Broadcast, slack: resources.Slack, environment_files: EnvironmentFiles
) -> None:
    document = Author(environment_files, "http://127.0.0.1:1").draft("1.0.0")
    update = update_plan_of(document, "CR-1", channel=f"#{slack.channel_name}")
    first = await run(broadcast.post_progress, ProgressInput(update=update, lines=("started",)))
    reply = await run(broadcast.announce, announcement(update_id=update.update_id))
    assert await run(broadcast.announce, announcement(update_id=update.update_id)) == reply
    client = WebClient(slack.token, base_url=slack.api_url)
    thread = client.conversations_replies(channel=slack.channel, ts=first.ts)["messages"]
    assert [message["ts"] for message in thread] == [first.ts, reply.ts]


async def test_an_update_is_told_in_few_calls(
    broadcast: Broadcast, slack: resources.Slack, environment_files: EnvironmentFiles
) -> None:
    address = urlsplit(slack.api_url)
    wire = Wire(slack.api_url)
    try:
        counted = Broadcast(
            channel=SlackChannel(slack.token, wire.url + address.path),
            ledger=broadcast._ledger,
            service=broadcast._service,
            config=broadcast._config,
        )
        update = update_plan_of(
            Author(environment_files, "http://127.0.0.1:1").draft("1.0.0"), "CR-1", channel=f"#{slack.channel_name}"
        )
        begun = await run(counted.post_progress, ProgressInput(update=update, lines=("started",)))
        edit = ProgressInput(update=update, ts=begun.ts, channel_id=begun.channel_id, lines=("published",))
        await run(counted.post_progress, edit)
        await run(counted.announce, announcement(update_id=update.update_id))
    finally:
        wire.close()
    assert {path.removeprefix(address.path): times for path, times in wire.asked.items()} == {
        "conversations.list": 1,
        "conversations.history": 2,  # one look before each post
        "conversations.replies": 1,
        "chat.postMessage": 2,
        "chat.update": 1,
        "chat.getPermalink": 1,
    }


async def test_a_thread_is_read_again_only_when_it_has_changed(slack: resources.Slack) -> None:
    address = urlsplit(slack.api_url)
    wire = Wire(slack.api_url)
    since = datetime.now(UTC) - timedelta(hours=1)
    name = f"#{slack.channel_name}"
    told: list[set[str]] = []
    read: list[int] = []

    async def look() -> list[tuple[str, str, str]]:
        found = await channel.announced(name, since)
        told.append({key for key, _, _ in found})
        read.append(wire.asked[f"{address.path}conversations.replies"])
        return found

    try:
        channel = SlackChannel(slack.token, wire.url + address.path)
        _, head = await channel.post(name, key="head", text="head", blocks=[])
        await channel.post(name, key="one", text="one", blocks=[], thread_ts=head)
        await look()
        await look()
        await channel.post(name, key="two", text="two", blocks=[], thread_ts=head)
        found = await look()
        _, channel_id, ts = next(entry for entry in found if entry[0] == "one")
        await channel.delete(channel_id, ts)
        await look()
    finally:
        wire.close()
    assert told == [{"head", "one"}, {"head", "one"}, {"head", "one", "two"}, {"head", "two"}]
    assert read == [1, 1, 2, 3]


async def test_a_channel_that_is_not_there_and_a_token_that_is_not_known_are_permanent(
    broadcast: Broadcast, slack: resources.Slack, environment_files: EnvironmentFiles, tmp_path: Path
) -> None:
    lost = Broadcast(
        channel=SlackChannel(slack.token, slack.api_url),
        ledger=broadcast._ledger,
        service=broadcast._service,
        config=make_config(environment_files, tmp_path, channel="#no-such-channel"),
    )
    failure = await refused(lost.announce, announcement())
    assert (failure.type, failure.non_retryable) == (NotFoundError.code, True)
    assert "/invite" in failure.message
    stranger = SlackChannel("", slack.api_url)
    with pytest.raises(ForbiddenError):
        await stranger.find(f"#{slack.channel_name}", "key")


async def test_a_slack_that_does_not_answer_is_transient(broadcast: Broadcast, slack: resources.Slack) -> None:
    silent = Broadcast(
        channel=SlackChannel(slack.token, "http://127.0.0.1:9/api/"),
        ledger=broadcast._ledger,
        service=broadcast._service,
        config=broadcast._config,
    )
    failure = await refused(silent.announce, announcement())
    assert (failure.type, failure.non_retryable) == ("unavailable", False)


async def test_another_environments_outcome_is_refused(broadcast: Broadcast, slack: resources.Slack) -> None:
    failure = await refused(broadcast.announce, announcement(environment="production"))
    assert failure.type == "invalid-request"
    assert messages(slack) == []


@pytest.fixture
def recorded(slack: resources.Slack, ledger: PostgresLedger, author: Author, tmp_path: Path) -> Broadcast:
    """Tells of the releases of a running service."""
    channel, config = SlackChannel(slack.token, slack.api_url), deployed(author.files, slack, tmp_path)
    return Broadcast(channel=channel, ledger=ledger, service=author.worker, config=config)


async def test_what_became_of_a_release_is_told_as_it_is_recorded_whatever_the_caller_says(
    recorded: Broadcast, author: Author, slack: resources.Slack
) -> None:
    first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
    _, held = await author.publish(author.draft("1.1.0", following(first)), expected_generation=1)
    lie = announcement(
        key="x/completed",
        outcome=Outcome.COMPLETED,
        generation=1,
        version="6.6.6",
        summary="everything is allowed",
        reason="see http://evil.example",
        approvers=("mallory",),
        restored_generation=7,
        workflow_id="see http://evil.example",
        run_id="evil",
        unreachable=("evil",),
    )
    for name, value in {"channel": "#elsewhere", "links": {"Temporal UI": "https://evil.example/"}}.items():
        with pytest.raises(ValidationError, match=name):  # channel and links are the deployment's
            Announcement.model_validate({**lie.model_dump(), name: value})
    with pytest.raises(ValidationError, match="outcome"):  # nor is what can become of a release the caller's
        Announcement.model_validate({**lie.model_dump(), "outcome": "approved by the board"})
    await run(recorded.announce, lie)
    await run(recorded.announce, lie.model_copy(update={"key": "y/completed", "answers": "z"}))
    (message,) = messages(slack)  # once, under whatever key it is asked for
    told = str(message)
    for word in ("evil", "6.6.6", "mallory", "everything is allowed"):
        assert word not in told
    for word in ("1.0.0", "What 1.0.0 says", "the test says confirmed", "alva, bruno"):
        assert word in told

    for changes in (
        {"key": "x/2", "generation": 2},  # live, unconfirmed
        {"key": "x/3", "generation": 2, "outcome": Outcome.ROLLED_BACK},
        {"key": "x/4", "generation": None},
        {"key": "x/6", "outcome": Outcome.REJECTED},
    ):
        failure = await refused(recorded.announce, lie.model_copy(update=changes))
        assert (failure.type, failure.non_retryable) == ("conflict", True)
    failure = await refused(recorded.announce, lie.model_copy(update={"key": "x/5", "generation": 9}))
    assert failure.type == "not-found"
    assert len(messages(slack)) == 1

    undo = await author.lease(held.update_id, Kind.ROLLBACK)
    await author.load(author.undoing(undo, 2, first.checksum), "undo")
    await author.stand(2, Standing.WITHDRAWN, undo)
    await run(recorded.announce, lie.model_copy(update={"key": "x/3", "generation": 2, "outcome": Outcome.ROLLED_BACK}))
    told = str(messages(slack)[0])
    assert "1.0.0 as generation 3" in told
    assert "the test says withdrawn" in told


async def test_telling_that_an_update_was_rejected_ends_it_and_one_that_is_live_is_not_told(
    recorded: Broadcast, author: Author, slack: resources.Slack
) -> None:
    request = await author.prepared(author.draft("1.0.0"), expected_generation=0)
    live = await author.prepared(author.draft("1.0.1"), expected_generation=0)
    lease = await author.lease(live.update_id)
    await author.load(live.model_copy(update={"fencing_token": lease.fencing_token}))

    failure = await refused(recorded.announce, announcement(key=f"{live.update_id}/rejected", update_id=live.update_id))
    assert failure.type == "conflict"
    said = announcement(key=f"{request.update_id}/rejected", update_id=request.update_id, reason="aborted: by hand")
    await run(recorded.announce, said)
    record = await author.worker.update(request.update_id)
    assert (record.state, record.steps[-1].reason) == (UpdateState.ABORTED, "aborted: by hand")
    assert str(request.change_request) in str(messages(slack))
    assert len(messages(slack)) == 1
