"""Targets that a list outside of environment.toml names: Prometheus' file_sd and http_sd, or the addresses of a name.

The list may change at any moment, so the two who must agree about it do not both read it. The assessor reads it once
for a sync, asks everybody whom it names, and signs how many that were and their digest; constitution-service demands at
least ``min_targets`` of each source. A source that is empty, or names fewer, is an error and never "all converged". A
replica that starts later reads what is current before it serves, and reconciliation asks it, too.

Format: prometheus.io/docs, http_sd and file_sd_config: ``[{"targets": ["host:port"], "labels": {"target": "id"}}]``.
Reads no disk and no network: adapters/target_sources.py.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError

from constitution import strict_json
from constitution.addresses import split_host
from constitution.environment import MAX_TARGETS, Identifier, Target, TargetSource
from constitution.errors import UnavailableError

MAX_LIST = 32 * 1024 * 1024  # bytes; 100,000 targets with a label each take some 10 MB
LABEL = "target"
"""The label that says a target's id, in a group of one address."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """Targets as they are listed now: by environment.toml itself, and by each source."""

    static: tuple[Target, ...]
    discovered: Mapping[str, tuple[Target, ...]] = field(default_factory=dict)

    @property
    def all(self) -> tuple[Target, ...]:
        """Everybody."""
        return (*self.static, *(target for targets in self.discovered.values() for target in targets))


_IDENTIFIER: TypeAdapter[str] = TypeAdapter(Identifier)


def require_enough(source: TargetSource, count: int) -> None:
    """Demand the least number.

    Raises:
        UnavailableError: there are fewer, or more than anybody asks.
    """
    if count < source.min_targets:
        raise UnavailableError(
            f"the target source {source.id} names {count:,} targets, fewer than min_targets = {source.min_targets:,}",
            hint="repair the list; nobody whom it has lost is taken for converged",
        )
    if count > MAX_TARGETS:
        raise UnavailableError(f"the target source {source.id} names {count:,} targets; at most {MAX_TARGETS:,}")


def listed_addresses(source: TargetSource, data: bytes) -> list[tuple[str, str]]:
    """Return id and URL of each target of a list.

    Raises:
        UnavailableError: it is no such list, or an address has no id; somebody is writing it, or has to repair it.
    """
    try:
        groups = strict_json.read(data, max_bytes=MAX_LIST)
        return list(_of_groups(source, groups))
    except (strict_json.StrictJsonError, ValidationError, ValueError, TypeError, KeyError, AttributeError) as error:
        why = " ".join(str(error).split())[:300]
        raise UnavailableError(f"the target source {source.id} cannot be read: {why}") from error


def _of_groups(source: TargetSource, groups: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(groups, list):
        raise TypeError("it is no list of groups")
    for group in groups:
        addresses, label = group["targets"], (group.get("labels") or {}).get(LABEL)
        if label is not None and len(addresses) != 1:
            raise ValueError(f"the label {LABEL} {label!r} is of {len(addresses)} addresses")
        for address in addresses:
            host, port = split_host(address)
            yield (
                _IDENTIFIER.validate_python(host.lower() if label is None else label),
                f"{source.scheme}://{host}:{port}",
            )


def require_distinct(ids: Iterable[str]) -> None:
    """Demand that no id is named twice, by one source or by two.

    Raises:
        UnavailableError: it names the first few.
    """
    twice = sorted(one for one, times in Counter(ids).items() if times > 1)
    if twice:
        raise UnavailableError(
            "a target is named twice: " + ", ".join(twice[:10]), hint=f"give each a label `{LABEL}` of its own"
        )
