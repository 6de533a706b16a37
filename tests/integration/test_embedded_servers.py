"""Each embedded server answers in its own protocol, with its password and not without."""

import secrets

import asyncpg
import httpx
import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError
from temporalio.client import Client

from deploy.embedded.slack import reader_token
from deploy.embedded.temporal import SEARCH_ATTRIBUTES
from tests.helpers import eventually
from tests.resources import Database, Prometheus, Slack


class TestPostgres:
    async def test_the_service_reads_and_writes_and_the_reader_only_reads(self, database: Database) -> None:
        owner = await asyncpg.connect(database.owner_url)
        await owner.execute("CREATE SCHEMA probe CREATE TABLE probe.notes (id bigserial PRIMARY KEY, note text)")
        await owner.close()
        service = await asyncpg.connect(database.url)
        await service.execute("INSERT INTO probe.notes (note) VALUES ('hello')")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await service.execute("DROP TABLE probe.notes")
        await service.close()
        reader = await asyncpg.connect(database.reader_url)
        assert await reader.fetchval("SELECT note FROM probe.notes") == "hello"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute("INSERT INTO probe.notes (note) VALUES ('x')")
        await reader.close()

    async def test_a_wrong_password_is_refused(self, database: Database) -> None:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(database.url, password=secrets.token_hex())


class TestValkey:
    async def test_a_client_without_password_is_refused(self, redis_url: str) -> None:
        async with Redis.from_url(redis_url) as client:
            assert await client.ping()
        address = redis_url.rpartition("@")[2]
        async with Redis.from_url(f"redis://{address}") as stranger:
            with pytest.raises(AuthenticationError):
                await stranger.ping()


class TestKafka:
    def test_creates_a_topic_for_who_has_the_password_only(
        self, kafka_configuration: dict[str, str | int | float | bool], namespace: str
    ) -> None:
        topic = f"{namespace}.probe"
        admin = AdminClient(kafka_configuration)
        admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(timeout=20)
        assert topic in admin.list_topics(timeout=10).topics
        stranger = AdminClient(kafka_configuration | {"sasl.password": "wrong", "log_level": 0})
        with pytest.raises(KafkaException):
            stranger.list_topics(timeout=2)


class TestTemporal:
    async def test_every_search_attribute_is_registered(self, temporal_client: Client) -> None:
        from temporalio.api.operatorservice.v1 import ListSearchAttributesRequest

        answer = await temporal_client.operator_service.list_search_attributes(
            ListSearchAttributesRequest(namespace=temporal_client.namespace)
        )
        assert SEARCH_ATTRIBUTES.keys() <= answer.custom_attributes.keys()

    async def test_the_ui_answers(self, temporal_settings: dict[str, str]) -> None:
        async with httpx.AsyncClient(trust_env=False) as client:
            page = await client.get(temporal_settings["TEMPORAL_UI_URL"])
        assert page.status_code == 200
        assert "<html" in page.text


class TestPrometheus:
    async def test_scrapes_a_target_that_a_test_adds(self, prometheus: Prometheus, namespace: str) -> None:
        prometheus.scrape(prometheus.url.removeprefix("http://"), job="probe", test=namespace)
        async with httpx.AsyncClient(trust_env=False, base_url=prometheus.url) as client:

            async def scraped() -> bool:
                query = f'up{{job="probe",test="{namespace}"}}'
                answer = (await client.get("/api/v1/query", params={"query": query})).json()
                return [sample["value"][1] for sample in answer["data"]["result"]] == ["1"]

            await eventually(scraped)


class TestSlackEmulator:
    def test_keeps_a_message(self, slack: Slack) -> None:
        client = WebClient(slack.token, base_url=slack.api_url)
        client.chat_postMessage(channel=slack.channel, text="hello")
        texts = [message["text"] for message in client.conversations_history(channel=slack.channel)["messages"]]
        assert "hello" in texts

    @pytest.mark.parametrize("often", [False, True])
    def test_holds_who_only_reads_to_reading(
        self, slack: Slack, slack_settings: dict[str, str], *, often: bool
    ) -> None:
        token = slack_settings["SLACK_READER_TOKEN"]
        reader = WebClient(reader_token(token, slack.channel) if often else token, base_url=slack.api_url)
        assert reader.conversations_history(channel=slack.channel)["messages"] == []
        with pytest.raises(SlackApiError, match="missing_scope"):
            reader.chat_postMessage(channel=slack.channel, text="hello")
