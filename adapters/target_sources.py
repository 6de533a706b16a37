"""Reads the lists of targets that environment.toml names (constitution/target_sources.py), anew each time it is asked.

Every source answers in bounded time and size, or the whole fleet is unknown: ``UnavailableError``.
"""

import asyncio
import socket
from collections.abc import Collection
from datetime import timedelta
from pathlib import Path

import httpx

from constitution.addresses import host_of, split_host
from constitution.environment import Environment, Target, TargetSource
from constitution.errors import InvalidRequestError, UnavailableError
from constitution.target_sources import MAX_LIST, Fleet, listed_addresses, require_distinct, require_enough
from signatures.authorities import authorities
from signatures.regular_file import read_regular

PATIENCE = timedelta(seconds=10)  # for one source; a list of 100,000 targets comes in a second or two


async def fleet_of(environment: Environment, directory: Path, rings: Collection[str] | None = None) -> Fleet:
    """Return the targets of an environment, as environment.toml and its sources list them now.

    Args:
        environment: whose.
        directory: of environment.toml.
        rings: whose targets; null: of all.

    Raises:
        UnavailableError: a source gives no list, fewer than its ``min_targets``, or a target is named twice.
    """

    def wanted(ring: str) -> bool:
        return rings is None or ring in rings

    sources = [source for source in environment.target_sources if wanted(source.ring)]
    found = await asyncio.gather(*(_targets(source, directory) for source in sources))
    fleet = Fleet(
        static=tuple(target for target in environment.targets if wanted(target.ring)),
        discovered={source.id: targets for source, targets in zip(sources, found, strict=True)},
    )
    if sources:
        require_distinct(target.id for target in fleet.all)
    return fleet


async def _targets(source: TargetSource, directory: Path) -> tuple[Target, ...]:
    try:
        async with asyncio.timeout(PATIENCE.total_seconds()):
            listed = await _listed(source, directory)
    except TimeoutError:
        raise UnavailableError(f"the target source {source.id} gave no list within {PATIENCE.seconds} s") from None
    require_enough(source, len(listed))
    return tuple(Target(id=name, kind=source.kind, ring=source.ring, url=url) for name, url in listed)


async def _listed(source: TargetSource, directory: Path) -> list[tuple[str, str]]:
    if source.source == "dns":
        return await _resolved(source)
    data = await (_read(source, directory) if source.source == "file" else _asked(source))
    return await asyncio.to_thread(listed_addresses, source, data)


async def _read(source: TargetSource, directory: Path) -> bytes:
    try:
        return await asyncio.to_thread(read_regular, directory / source.at, MAX_LIST)
    except InvalidRequestError as error:  # whoever writes it may replace it at this very moment
        raise UnavailableError(f"the target source {source.id} cannot be read: {error.message}") from error


async def _asked(source: TargetSource) -> bytes:
    answer = bytearray()
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    where = f"the target source {source.id} at {host_of(source.at)}"
    try:
        async with (
            httpx.AsyncClient(trust_env=False, follow_redirects=False, verify=authorities()) as http,
            http.stream("GET", source.at, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK or "content-encoding" in response.headers:
                raise UnavailableError(f"{where} answers with HTTP {response.status_code}, and no plain list")
            async for part in response.aiter_raw():
                answer += part
                if len(answer) > MAX_LIST:
                    raise UnavailableError(f"{where} answers with more than {MAX_LIST} bytes")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise UnavailableError(f"{where} did not answer: {type(error).__name__}") from error
    return bytes(answer)


async def _resolved(source: TargetSource) -> list[tuple[str, str]]:
    host, port = split_host(source.at)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, family=socket.AF_INET, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UnavailableError(f"the target source {source.id}: {host} has no address: {error.strerror}") from error
    addresses = sorted({str(address[0]) for *_, address in found})
    return [(address, f"{source.scheme}://{address}:{port}") for address in addresses]
