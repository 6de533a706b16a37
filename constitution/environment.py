"""One deployment of all this: its targets, tenants, trust, gate and strategies, as ``environment.toml`` says."""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from constitution import toml
from constitution.addresses import split_host
from constitution.errors import MAX_ISSUES, InvalidRequestError, Issue, listed
from constitution.model import Model
from constitution.names import DEFAULT_RING
from constitution.release import Verdict
from constitution.watch.baseline import SHORTEST_SCRAPE_SECONDS
from constitution.watch.quantities import QUANTITIES, QuantityName, quantity_of

Identifier = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
"""A name that is safe in paths, labels, topics and workflow ids."""

MAX_TARGETS = 100_000
"""Of one source: twice what was ever asked at once (docs/scale.md)."""

Action = Literal["continue", "hold", "rollback", "extend_once"]
"""The action of a strategy on a verdict."""


class Target(Model):
    """One replica of a consumer that must obey."""

    id: Identifier
    kind: Literal["orchestrator", "policy_engine"]
    ring: Identifier = DEFAULT_RING
    url: str


class TargetSource(Model):
    """Where more targets are listed, all of one kind and ring (constitution/target_sources.py).

    Args:
        id: its name in attestations; unique.
        source: ``file``: Prometheus' file_sd as JSON; ``http_sd``: the same over HTTP; ``dns``: every IPv4 address of
            a name.
        at: the path, relative to environment.toml's folder; the URL; or ``host:port``.
        scheme: of the targets' addresses.
        min_targets: fewer than these are an error, never "all converged".
    """

    id: Identifier
    source: Literal["file", "http_sd", "dns"]
    at: Annotated[str, StringConstraints(min_length=1, max_length=2048)]
    kind: Literal["orchestrator", "policy_engine"]
    ring: Identifier = DEFAULT_RING
    scheme: Literal["http", "https"] = "http"
    min_targets: Annotated[int, Field(ge=1, le=MAX_TARGETS)]

    @model_validator(mode="after")
    def _has_an_address(self) -> "TargetSource":
        if self.source == "dns":
            split_host(self.at)
        elif self.source == "http_sd" and not self.at.startswith(("http://", "https://")):
            raise ValueError("the address of an http_sd is an http or https URL")
        return self


class WatchedQuantity(Model):
    """One of several quantities that a strategy watches; a null field is taken from the strategy.

    Args:
        quantity: which one (constitution/watch/quantities.py); it brings its own measure.
        weight: its part of the budget ``alpha``, relative to the others'.
        delta: relative change that is tolerated.
        min_rate: absolute slack in its unit: events per second, or a share of evaluations.
        direction: which way a change is an anomaly.
        required: without evidence about it there is no ``ok``; false: it can only raise the alarm.
    """

    quantity: QuantityName
    weight: Annotated[float, Field(gt=0, le=1000)] = 1.0
    delta: Annotated[float, Field(ge=0, le=10)] | None = None
    min_rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    direction: Literal["up", "down", "both"] | None = None
    required: bool = True


RATE_AND_SHARE = (WatchedQuantity(quantity="evaluations"), WatchedQuantity(quantity="deny_share", min_rate=0.01))
"""How often agents ask, and how many are refused: either alone is blind to what the other shows."""


class Strategy(Model):
    """How a release goes live (v1: all at once) and how it is watched.

    Args:
        watch_seconds: length of the watch; 0 means no watch (verdict ``not_watched``).
        baseline_seconds: how much traffic before publish the watch compares with.
        scrape_seconds: the scrape interval of the watched metric; a tenth of a second at least.
        measure: of a strategy without ``quantities``: ``rate`` watches evaluations per second and nothing else,
            ``share`` the refused among them (immune to load) and nothing else.
        alpha: budget of false rollbacks per release.
        delta: relative rise that is tolerated.
        min_rate: absolute slack in events per second (or share).
        direction: which way a change is an anomaly.
        quantities: watch these together, within the one budget ``alpha``; empty: one quantity, as ``measure`` says.
        use_expected: test shares against the change that was predicted and approved, not against none.
    """

    watch_seconds: Annotated[int, Field(ge=0, le=7 * 86400)] = 1800
    baseline_seconds: Annotated[int, Field(ge=12, le=7 * 86400)] = 3600  # 12: a baseline has at least 12 scrapes
    scrape_seconds: Annotated[float, Field(ge=SHORTEST_SCRAPE_SECONDS, le=300)] = 5.0
    measure: Literal["rate", "share"] = "rate"
    alpha: Annotated[float, Field(gt=0, lt=0.5)] = 0.01
    delta: Annotated[float, Field(ge=0, le=10)] = 0.10
    min_rate: Annotated[float, Field(ge=0)] = 0.05
    direction: Literal["up", "down", "both"] = "both"
    quantities: tuple[WatchedQuantity, ...] = ()
    use_expected: bool = True
    on_anomaly: Action = "rollback"
    on_no_data: Action = "rollback"
    on_cannot_tell: Action = "hold"

    def words(self) -> str:
        """Return what the strategy does, in one line: what a signer reads."""
        if self.watch_seconds == 0:
            return "not watched: confirmed as soon as every target obeys"
        names = [q.quantity for q in self.quantities] or [quantity_of(self.measure)]
        measured = ", ".join(f"{name} ({QUANTITIES[name].measure})" for name in names)
        return (
            f"watched for {self.watch_seconds} s against the {self.baseline_seconds} s before: "
            f"{measured if len(names) > 1 else f'{measured} only'}, alpha {self.alpha:g}, tolerance {self.delta:g}; "
            f"on anomaly {self.on_anomaly}, without data {self.on_no_data}, undecided {self.on_cannot_tell}"
        )

    def action(self, verdict: Verdict, *, extended: bool) -> Action:
        """Return what to do about a verdict of a watch; one that was extended already is held for a person."""
        declared: dict[Verdict, Action] = {
            Verdict.OK: "continue",
            Verdict.ANOMALY: self.on_anomaly,
            Verdict.NO_DATA: self.on_no_data,
        }
        action = declared.get(verdict, self.on_cannot_tell)
        return "hold" if extended and action == "extend_once" else action

    @field_validator("quantities")
    @classmethod
    def _each_once(cls, quantities: tuple[WatchedQuantity, ...]) -> tuple[WatchedQuantity, ...]:
        names = [watched.quantity for watched in quantities]
        if len(names) != len(set(names)):
            raise ValueError("a strategy watches each quantity at most once")
        return quantities


class Deadlines(Model):
    """How long waits last, in seconds, before the run rejects (before publish) or rolls back (after it)."""

    decisions: Annotated[int, Field(ge=1)] = 7 * 86400
    person: Annotated[int, Field(ge=1)] = 3600  # `needs a person`, before confirmation: then it rolls back
    hold: Annotated[int, Field(ge=1)] = 4 * 3600
    sync: Annotated[int, Field(ge=1)] = 60
    gate: Annotated[int, Field(ge=1)] = 300


class Environment(Model):
    """``environment.toml``. Paths are relative to the file's own folder.

    Args:
        trust: path of ``trust.toml``.
        gate: folder that holds the regression gate (``policy/`` and ``chaos/``).
        inbox: folder from which ``document`` and ``signatures`` of an update may be taken by name.
        unsigned_steering: whether a message that nobody signed may hold, resume, retry, abort what is live, roll back.
    """

    schema_version: Literal[1] = 1
    environment: Identifier
    tenants: Annotated[tuple[Identifier, ...], Field(min_length=1)] = ("global",)
    trust: str = "trust/trust.toml"
    gate: str
    inbox: str = "inbox"
    channel: str = "#release"
    unsigned_steering: Literal["refuse", "allow"] = "refuse"
    targets: tuple[Target, ...] = ()
    target_sources: tuple[TargetSource, ...] = ()
    strategies: dict[Identifier, Strategy] = Field(
        default_factory=lambda: {"default": Strategy(quantities=RATE_AND_SHARE)}
    )
    deadlines: Deadlines = Deadlines()

    @classmethod
    def parse(cls, text: str) -> "Environment":
        """Read ``environment.toml``.

        Raises:
            InvalidRequestError: with every problem listed.
        """
        data = toml.read(text, what="environment.toml")
        try:
            environment = cls.model_validate(data)
        except ValidationError as error:
            raise InvalidRequestError("environment.toml is not valid", issues=issues_of(error)) from error
        ids = [target.id for target in environment.targets]
        if len(ids) != len(set(ids)):
            raise InvalidRequestError("environment.toml names a target twice: " + ", ".join(sorted(ids)))
        sources = [source.id for source in environment.target_sources]
        if len(sources) != len(set(sources)):
            raise InvalidRequestError("environment.toml names a target source twice: " + ", ".join(sorted(sources)))
        return environment

    def rings(self) -> tuple[str, ...]:
        """Return the rings that have targets, ``default`` at least."""
        listed = {target.ring for target in self.targets} | {source.ring for source in self.target_sources}
        return tuple(sorted(listed | {DEFAULT_RING}))


def issues_of(error: ValidationError) -> tuple[Issue, ...]:
    """Return the problems of a pydantic error as Issues whose paths are JSON pointers; values are not repeated.

    At most ``MAX_ISSUES``, and one that counts the rest.
    """
    found = error.errors(include_url=False, include_input=False, include_context=False)
    issues = [
        Issue(code=item["type"], path="/" + "/".join(str(part)[:64] for part in item["loc"]), message=item["msg"][:500])
        for item in found[: MAX_ISSUES + 1]
    ]
    return listed(issues, len(found))
