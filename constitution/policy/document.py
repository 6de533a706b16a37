"""Reads a constitution from exact bytes, and lists every problem at once. Its meaning: constitution/policy/rules.py.

What it does not do: signatures (package signatures), and whether the document may follow the current one
(constitution/policy/validity.py). A validator of each schema version that was ever live stays here for ever.
"""

import json
from collections import Counter
from datetime import datetime, timedelta
from functools import cache
from importlib import resources
from itertools import islice
from typing import Annotated, Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError as SchemaError
from pydantic import AwareDatetime, ConfigDict, Field, ValidationError

from constitution import strict_json
from constitution.environment import Identifier, issues_of
from constitution.errors import MAX_ISSUES, InvalidDocumentError, InvalidRequestError, Issue
from constitution.model import Model
from constitution.policy.evaluation import Decision
from constitution.policy.expressions import check_expression
from constitution.policy.lapse import MAX_GRACE, OnLapse, Terms
from constitution.release import Previous
from constitution.version import Version

SCHEMA_VERSIONS = (1,)

Severity = Literal["info", "low", "medium", "high", "critical"]
SEVERITIES: tuple[Severity, ...] = ("info", "low", "medium", "high", "critical")
"""Lowest first."""


class _Part(Model):
    """Strict: the JSON types of the schema, no coercion."""

    model_config = ConfigDict(strict=True)


class Principle(_Part):
    """Why there are rules: a sentence that people agreed on."""

    id: Identifier
    text: str


class Rule(_Part):
    """One rule: when the CEL expression ``when`` is true, ``effect`` holds."""

    id: Identifier
    principle: Identifier
    effect: Decision
    when: str
    severity: Severity
    message: str


class Constitution(_Part):
    """A constitution, schema version 1. Times are aware; see schema/v1.json for every limit."""

    schema_version: Literal[1]
    environment: Identifier
    version: str
    title: str
    summary: str
    issued_at: AwareDatetime
    effective_at: AwareDatetime | None = None
    expires_at: AwareDatetime
    on_expiry: OnLapse = OnLapse.DENY
    expiry_grace: Annotated[int, Field(ge=0, le=int(MAX_GRACE.total_seconds()))] = 0
    on_stale: OnLapse = OnLapse.ENFORCE
    previous: Previous | None
    principles: tuple[Principle, ...]
    rules: tuple[Rule, ...]
    default_effect: Decision

    @property
    def terms(self) -> Terms:
        """What it says about its own end."""
        return Terms(self.expires_at, timedelta(seconds=self.expiry_grace), self.on_expiry, self.on_stale)


@cache
def _schema(schema_version: int) -> dict[str, Any]:
    text = resources.files("constitution").joinpath(f"schema/v{schema_version}.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def schema(schema_version: int = 1) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a schema version; a fresh copy.

    Raises:
        InvalidRequestError: there is no such version.
    """
    if schema_version not in SCHEMA_VERSIONS:
        known = ", ".join(str(v) for v in SCHEMA_VERSIONS)
        raise InvalidRequestError(f"there is no schema version {schema_version}", hint=f"known: {known}")
    copy: dict[str, Any] = json.loads(json.dumps(_schema(schema_version)))
    return copy


@cache
def _validator(schema_version: int) -> Any:
    return Draft202012Validator(_schema(schema_version))


def parse(data: bytes) -> Constitution:
    """Read a constitution.

    Raises:
        InvalidDocumentError: with the problems found, at most ``MAX_ISSUES`` of the schema: size, UTF-8, JSON, nesting,
            duplicate keys, schema, ids, principles, dates, rules that do not compile or break the limits of
            constitution/policy/expressions.py. Nothing else is raised, for any bytes.
    """
    try:
        value = strict_json.read(data)
    except strict_json.StrictJsonError as error:
        raise _invalid([error.issue]) from error
    schema_version = value.get("schema_version", 1) if isinstance(value, dict) else 1
    if type(schema_version) is int and schema_version not in SCHEMA_VERSIONS:
        message = f"schema version {schema_version} is not known; known: {', '.join(map(str, SCHEMA_VERSIONS))}"
        raise _invalid([Issue(code="schema-version", path="/schema_version", message=message)])
    # The schema's problems are found one by one: all those of a hostile megabyte would take minutes.
    found = [_schema_issue(error) for error in islice(_validator(1).iter_errors(value), MAX_ISSUES + 1)]
    more = len(found) > MAX_ISSUES
    issues = found[:MAX_ISSUES]
    if isinstance(value, dict):
        issues += _semantic_issues(value)
    if not issues:
        try:
            document = Constitution.model_validate_json(data)
        except ValidationError as error:
            issues += issues_of(error)
        else:
            issues += _order_issues(document)
            if not issues:
                return document
    raise _invalid(issues, more=more)


def _invalid(issues: list[Issue], *, more: bool = False) -> InvalidDocumentError:
    count = "1 problem" if len(issues) == 1 else f"{len(issues)} problems"
    shown = sorted(issues, key=lambda issue: (issue.path, issue.code))
    if more:
        count = f"more than {MAX_ISSUES} problems"
        shown = [*shown[:MAX_ISSUES], Issue(code="more", message="and more problems")]
    return InvalidDocumentError(
        f"the constitution is not valid: {count}", issues=shown, hint="correct the document, sign it again, push it"
    )


def _pointer(parts: Any) -> str:
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1")[:64] for part in parts)


def _schema_issue(error: SchemaError) -> Issue:
    message = error.message if len(error.message) <= 300 else error.message[:297] + "..."
    return Issue(code=f"schema-{error.validator}", path=_pointer(error.absolute_path), message=message)


def _items(value: dict[str, Any], name: str) -> list[tuple[int, dict[str, Any]]]:
    """Return the objects of a list that may be anything, with their positions."""
    found = value.get(name)
    if not isinstance(found, list) or len(found) > 500:
        return []
    return [(i, item) for i, item in enumerate(found) if isinstance(item, dict)]


def _semantic_issues(value: dict[str, Any]) -> list[Issue]:
    """Find what JSON Schema cannot say, in a value that may break the schema too."""
    issues: list[Issue] = []
    for name in ("principles", "rules"):
        ids = Counter(item["id"] for _, item in _items(value, name) if isinstance(item.get("id"), str))
        issues += [
            Issue(code="duplicate-id", path=f"/{name}", message=f"the id {twice[:63]!a} stands {count} times")
            for twice, count in ids.items()
            if count > 1
        ]
    principles = {item.get("id") for _, item in _items(value, "principles") if isinstance(item.get("id"), str)}
    for index, rule in _items(value, "rules"):
        principle, when = rule.get("principle"), rule.get("when")
        if isinstance(principle, str) and principle not in principles:
            message = f"there is no principle {principle[:63]!a}"
            issues.append(Issue(code="unknown-principle", path=f"/rules/{index}/principle", message=message))
        if isinstance(when, str) and 0 < len(when) <= 4096:  # the schema reports the others
            issues += check_expression(when, f"/rules/{index}/when")
    return issues


def _order_issues(document: Constitution) -> list[Issue]:
    issues = []

    def later(name: str, value: datetime, other_name: str, other: datetime) -> None:
        if value <= other:
            message = f"{name} {value.isoformat()} is not after {other_name} {other.isoformat()}"
            issues.append(Issue(code="date-order", path=f"/{name}", message=message))

    later("expires_at", document.expires_at, "issued_at", document.issued_at)
    if document.effective_at is not None:
        later("expires_at", document.expires_at, "effective_at", document.effective_at)
    if document.previous is not None and Version.parse(document.version) <= Version.parse(document.previous.version):
        message = f"version {document.version} is not higher than previous {document.previous.version}"
        issues.append(Issue(code="version-order", path="/version", message=message))
    return issues
