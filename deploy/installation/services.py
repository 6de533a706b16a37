"""Our own services: constitution-service and every target that environment.toml lists."""

import email.utils
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

import httpx
from pydantic import ValidationError

from adapters.environment_config import EnvironmentConfig
from constitution.addresses import host_of
from constitution.environment import Target
from constitution.errors import ConstitutionError
from constitution.policy.consumer_api import PolicyStatus
from constitution_client.service import ConstitutionServiceClient
from deploy.installation.check import Check, cannot_tell, clock, missing, not_set, now, ok, refused
from deploy.installation.settings import InstallationSettings
from signatures.authorities import authorities
from signatures.current import verify_current

PLACE = "CONSTITUTION_SERVICE_URL"
READY = 'curl --silent "$CONSTITUTION_SERVICE_URL/readyz"'
TIMEOUT = httpx.Timeout(5.0, connect=2.0)  # seconds
SECOND = timedelta(seconds=1)  # the header Date has whole seconds
MAX_ANSWER = 64 * 1024  # bytes; a status has some hundred


async def services(settings: InstallationSettings, config: EnvironmentConfig | None) -> AsyncIterator[Check]:
    """Ask each service whether it is well, and compare its clock."""
    if settings.constitution_service_url is None:
        yield not_set(PLACE, "the worker or an operator")
    else:
        async for check in _constitution_service(settings.constitution_service_url, config):
            yield check
    for target in config.environment.targets if config is not None else ():
        for check in await _target(target):
            yield check


async def _constitution_service(url: str, config: EnvironmentConfig | None) -> AsyncIterator[Check]:
    try:
        async with ConstitutionServiceClient(url, None, "") as client:
            ready = await client.ready()
            live = await client.current()
    except ConstitutionError as error:
        yield refused(PLACE, "answers", error, READY)
        return
    yield ok(PLACE, "answers", f"is {ready.status}")
    for name, state in sorted(ready.checks.items()):
        if state != "ok":
            yield missing(PLACE, name, state, READY)
    yield await _clock_of(PLACE, url.rstrip("/") + "/healthz")
    if config is None:
        return
    if live is None:
        yield ok(PLACE, "release", "nothing is live yet: every request of an agent is refused")
        return
    try:
        verify_current(live, trust=config.trust, environment=config.name, ring="default")
    except ConstitutionError as error:
        command = "sha256sum trust/trust.toml  # on this machine and on the service's: it must be the same policy"
        yield missing(
            PLACE, "release", f"what is live is not signed as this trust policy asks: {error.message}", command
        )
        return
    yield ok(PLACE, "release", f"generation {live.generation}, signed as this trust policy asks")


async def _clock_of(place: str, url: str) -> Check:
    asked = now()
    try:
        _, said = await _get(url)
    except httpx.HTTPError as error:
        return cannot_tell(place, "clock", f"no answer: {type(error).__name__}", f"curl --head {url}")
    return _clock(place, said, asked, now(), url)


def _clock(place: str, said: str, asked: datetime, answered: datetime, url: str) -> Check:
    try:
        theirs = email.utils.parsedate_to_datetime(said)
    except ValueError:
        return cannot_tell(place, "clock", "its answers carry no Date", f"curl --head {url}")
    return clock(place, theirs, asked, answered, SECOND)


async def _target(target: Target) -> list[Check]:
    place = f"target {target.id}"
    url = target.url.rstrip("/") + "/v1/policy"
    command = f"curl --silent {url}"
    asked = now()
    try:
        body, said = await _get(url)
        status = PolicyStatus.model_validate_json(body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return [missing(place, "answers", f"{host_of(target.url)} does not answer: {type(error).__name__}", command)]
    except ValidationError:
        return [missing(place, "answers", f"{host_of(target.url)} answers, but is no consumer of ours", command)]
    answered = now()
    found = [_clock(place, said, asked, answered, url)]
    if (status.target, status.ring) != (target.id, target.ring):
        detail = f"answers as {status.target!r} of ring {status.ring!r}; environment.toml says ring {target.ring!r}"
        return [
            missing(place, "answers", detail, f"export TARGET_ID={target.id} RING={target.ring}  # of that process")
        ]
    return [ok(place, "answers", f"obeys generation {status.generation}, {status.state}"), *found]


async def _get(url: str) -> tuple[bytes, str]:
    """Return what is answered, and its header Date.

    Raises:
        httpx.HTTPError: no answer, another status than 200, or more than ``MAX_ANSWER`` bytes.
    """
    # Uncompressed: such an answer grows beyond any bound while it is unpacked.
    options = {"trust_env": False, "follow_redirects": False, "headers": {"Accept-Encoding": "identity"}}
    async with (
        httpx.AsyncClient(timeout=TIMEOUT, verify=authorities(), **options) as http,  # type: ignore[arg-type]
        http.stream("GET", url) as answer,
    ):
        answer.raise_for_status()
        body = bytearray()
        async for part in answer.aiter_raw():
            body += part
            if len(body) > MAX_ANSWER:
                raise httpx.DecodingError(f"more than {MAX_ANSWER} bytes")
    return bytes(body), answer.headers.get("date", "")
