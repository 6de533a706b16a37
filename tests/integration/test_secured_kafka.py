"""A broker with TLS by a company's authority: each way to log in; a release where every server is secured."""

import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from adapters.event_log import KafkaEventLog
from adapters.kafka_settings import KafkaSettings
from constitution.errors import ConstitutionError, UnavailableError
from constitution.names import Names
from deploy.embedded.stack_directory import StackDirectory
from tests.helpers import eventually
from tests.world.authority import Authority
from tests.world.documents import following
from tests.world.environment import serving
from tests.world.files import EnvironmentFiles
from tests.world.secured import SecuredKafka, SecuredRedis, SecuredStore, running

SHORT = timedelta(seconds=4)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
async def broker(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[SecuredKafka]:
    server = SecuredKafka(StackDirectory(tmp_path_factory.mktemp("broker")), print)
    server.secure(authority)
    async with running(server):
        yield server


async def usable(settings: dict[str, str]) -> None:
    configured = KafkaSettings(**{name.lower(): value for name, value in settings.items()})  # type: ignore[arg-type]
    await KafkaEventLog(configured.kafka_client(), Names("t"), timeout=SHORT).require_usable()


def ways(broker: SecuredKafka, authority: Authority) -> dict[str, dict[str, str]]:
    """The settings of each client."""
    passwords = {kind: broker.with_password(kind) for kind in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")}
    return passwords | {"certificate": broker.with_certificate(authority.issue("client"))}


@pytest.mark.parametrize(
    "way",
    [
        "PLAIN",
        *(pytest.param(way, marks=pytest.mark.slow) for way in ("SCRAM-SHA-256", "SCRAM-SHA-512", "certificate")),
    ],
)
async def test_each_way_in_is_taken_by_the_machines_authorities_alone(
    way: str, broker: SecuredKafka, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ways(broker, authority)[way]
    with pytest.raises(UnavailableError):
        await usable(settings)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    await usable(settings)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_a_wrong_password_is_refused_for_good(
    way: str, broker: SecuredKafka, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with pytest.raises(ConstitutionError, match="refuses these credentials") as said:
        await usable(broker.with_password(way) | {"KAFKA_PASSWORD": "wrong"})
    assert said.value.permanent


async def test_without_a_certificate_nobody_comes_in(
    broker: SecuredKafka, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    settings = broker.with_certificate(authority.issue("client"))
    bare = {name: value for name, value in settings.items() if "CERTIFICATE" not in name}
    foreign = broker.with_certificate(Authority(tmp_path / "other").issue("client"))
    for refused in (bare, foreign):
        with pytest.raises(UnavailableError):
            await usable(refused)


@pytest.mark.slow
async def test_a_token_of_the_companys_endpoint_lets_in_and_nothing_else_does(
    broker: SecuredKafka, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    with broker.tokens.running() as url:
        settings = broker.with_token(url)
        with pytest.raises(UnavailableError):  # neither endpoint nor broker is of the machine's authorities
            await usable(settings)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        await usable(settings)
        for wrong in ({"KAFKA_PASSWORD": "wrong"}, {"KAFKA_TOKEN_SCOPE": "another"}):
            with pytest.raises(ConstitutionError, match="token endpoint refuses these credentials") as said:
                await usable(settings | wrong)
            assert said.value.permanent
            assert broker.tokens.secret not in said.value.diagnostics()
        broker.tokens.down = True
        with pytest.raises(UnavailableError) as away:
            await usable(settings)
        assert not away.value.permanent
        assert "KAFKA_TOKEN_URL" in away.value.diagnostics()
        broker.tokens.down, broker.tokens.foreign = False, True
        with pytest.raises(ConstitutionError, match="refuses these credentials") as forged:
            await usable(settings)
        assert forged.value.permanent
        broker.tokens.foreign = False
        await usable(settings)


@pytest.mark.slow
async def test_a_release_goes_through_on_tokens_that_expire(
    broker: SecuredKafka,
    authority: Authority,
    service_settings: dict[str, str],
    environment_files: EnvironmentFiles,
    *,
    tmp_path: Path,
) -> None:
    with broker.tokens.running() as url:
        secured = service_settings | broker.with_token(url) | {"SSL_CERT_FILE": str(authority.file)}
        async with serving(environment_files, secured, tmp_path / "log") as served:
            author = served.author
            first = await author.confirmed(author.draft("1.0.0"), expected_generation=0)
            await author.delivered(1)
            end = time.monotonic() + broker.LIFETIME.total_seconds()
            given = broker.tokens.given
            await eventually(lambda: time.monotonic() > end and broker.tokens.given > given)  # the first ones are dead
            await author.confirmed(author.draft("1.1.0", following(first)), expected_generation=1)
            await author.delivered(2)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"kafka_certificate_file": __file__, "kafka_security_protocol": "SSL"}, "together"),
        ({"kafka_certificate_file": __file__, "kafka_certificate_key_file": __file__}, "SECURITY_PROTOCOL=SSL"),
        ({"kafka_username": "anna", "kafka_security_protocol": "SSL"}, "SASL_SSL"),
        ({"kafka_security_protocol": "SASL_SSL"}, "KAFKA_USERNAME"),
        ({"kafka_username": "anna", "kafka_sasl_mechanism": "GSSAPI"}, "SCRAM-SHA-512"),
        ({"kafka_username": "anna", "kafka_sasl_mechanism": "OAUTHBEARER"}, "KAFKA_TOKEN_URL"),
        ({"kafka_username": "anna", "kafka_token_url": "https://x/token"}, "KAFKA_SASL_MECHANISM=OAUTHBEARER"),
        ({"kafka_username": "anna", "kafka_token_url": "http://x/token"}, "kafka_token_url"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_at_the_start(given: dict[str, str], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        KafkaSettings(kafka_bootstrap_servers="127.0.0.1:1", **given)  # type: ignore[arg-type]


@pytest.mark.slow
async def test_a_release_goes_through_where_every_server_is_secured(
    broker: SecuredKafka,
    authority: Authority,
    service_settings: dict[str, str],
    environment_files: EnvironmentFiles,
    *,
    tmp_path: Path,
) -> None:
    valkey = SecuredRedis(StackDirectory(tmp_path / "valkey"), print)
    store = SecuredStore(StackDirectory(tmp_path / "store"), print)
    for server in (valkey, store):
        server.secure(authority)
    async with running(valkey), running(store):
        secured = service_settings | broker.with_password("SCRAM-SHA-512") | store.settings()
        secured |= {"REDIS_URL": valkey.url(), "SSL_CERT_FILE": str(authority.file)}
        async with serving(environment_files, secured, tmp_path / "log") as served:
            author = served.author
            await author.confirmed(author.draft("1.0.0"), expected_generation=0)
            release = await author.delivered(1)
    assert release.delivery is not None
