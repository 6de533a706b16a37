"""Resolves an update's request, and collects every problem with it, so that a person corrects all of them at once.

Problems are of the request, the document, the change request and the live release; a system that does not answer is
none of these: then the error is transient.
"""

import asyncio
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime

from activities.documents import inbox_file
from activities.ports import ActivityConfig, ConstitutionService
from constitution.api import ChangeRequest
from constitution.checksum import checksum_of
from constitution.environment import Strategy
from constitution.errors import (
    InvalidDocumentError,
    InvalidRequestError,
    Issue,
    NotFoundError,
    UntrustedError,
)
from constitution.messages import UpdateRequest
from constitution.past import Past, versions_before
from constitution.policy import document as documents
from constitution.policy import validity
from constitution.policy.document import Constitution
from constitution.policy.poison import issues_among
from constitution.release import Kind, Previous
from constitution.version import Version
from signatures.statements import verify_change_request

# The next command by what is wrong, in the order in which a person would correct it.
_NEXT = {
    "unknown-checksum": "push the document and its signature, then start the update anew",
    "unknown-change-request": "have its author file the change request, then start the update anew",
    "used-change-request": "have its author file a new change request, then start the update anew",
    "unknown-strategy": "choose one of the strategies that environment.toml names",
    "inbox": "copy document and signatures into the inbox folder, and name them without a path",
}
_OTHERWISE = "draft it anew from what is live, sign the draft and push it"


class Resolver:
    """Resolves one request; ``problems`` grows as it goes.

    Args:
        service: where artifacts, change requests and releases are.
        config: of which environment.
    """

    def __init__(self, service: ConstitutionService, config: ActivityConfig) -> None:
        self._service = service
        self._config = config
        self.problems: list[Issue] = []
        self._asked: str | None = None

    def strategy(self, request: UpdateRequest) -> Strategy | None:
        """Return the strategy by name."""
        known = self._config.environment.strategies
        found = known.get(request.strategy)
        if found is None:
            message = f"there is no strategy {request.strategy!r}; there is {', '.join(sorted(known))}"
            self._problem("unknown-strategy", "/strategy", message)
        return found

    async def document(self, request: UpdateRequest) -> tuple[bytes | None, str | None]:
        """Return bytes and checksum: from the store, or from the inbox; signatures must be there too."""
        if request.checksum is not None:
            try:
                return await self._service.artifact(request.checksum), request.checksum
            except NotFoundError:
                message = "no artifact with this checksum was ever pushed"
                self._problem("unknown-checksum", "/checksum", message)
                return None, request.checksum
        data: bytes | None = None
        names = [("/document", request.document or "")]
        names += [(f"/signatures/{number}", name) for number, name in enumerate(request.signatures or ())]
        for path, name in names:
            try:
                read = await inbox_file(self._config, name)
            except InvalidRequestError as error:
                self._problem("inbox", path, error.message)
            else:
                data = read if path == "/document" else data
        return data, None if data is None else checksum_of(data)

    async def change_request(self, change_request: str, checksum: str | None) -> ChangeRequest | None:
        """Return the change request, if its author signed it and it asks for these bytes."""
        try:
            record = await self._service.change_request(change_request)
        except NotFoundError:
            message = f"there is no change request {change_request}"
            self._problem("unknown-change-request", "/change_request", message)
            return None
        try:
            signed = await asyncio.to_thread(
                verify_change_request, record.envelope, self._config.trust, datetime.now(UTC)
            )
        except UntrustedError as error:
            self._problem("change-request-untrusted", "/change_request", error.message)
            return None
        self._asked = signed.id
        if signed != record.request or signed.id != change_request:
            message = f"{change_request} is stored with other content than its author signed"
            self._problem("change-request-untrusted", "/change_request", message)
        if checksum is not None and signed.checksum != checksum:
            message = f"{change_request} asks for {signed.checksum}, not for {checksum}"
            self._problem("other-document", "/change_request", message)
        return signed

    def unused(self, change_request: str, releases: Sequence[Past]) -> None:
        """Note a change request that has made its one release: the service refuses it for another."""
        used = [r.generation for r in releases if r.change_request == change_request and r.kind is Kind.UPDATE]
        if used:
            message = (
                f"{change_request} was published already, as generation {used[-1]}: a request is good for one release"
            )
            self._problem("used-change-request", "/change_request", message)

    async def constitution(self, data: bytes | None, releases: Sequence[Past]) -> Constitution | None:
        """Return the parsed document, after asking whether it may follow what is live now."""
        if data is None:
            return None
        try:
            parsed = await asyncio.to_thread(documents.parse, data)
        except InvalidDocumentError as error:
            self.problems += error.issues
            return None
        self.problems += succession_issues(
            parsed,
            checksum_of(data),
            releases,
            self._config.name,
            datetime.now(UTC),
            harmful=await harmful_issues(self._service, data),
        )
        return parsed

    def refusal(self) -> InvalidRequestError:
        """Return the error that lists every problem and names the next command."""
        codes = {issue.code for issue in self.problems}
        hint = next((command for code, command in _NEXT.items() if code in codes), _OTHERWISE)
        if codes & {"poisoned", "poisoned-rules"} and self._asked is not None:
            request = shlex.quote(self._asked)
            hint = (
                f"constitution reissue {request} --reason 'why'  # as many of the board as it takes, then start it anew"
            )
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        return InvalidRequestError(
            f"this update cannot start: {count}; nothing was changed", issues=self.problems, hint=hint
        )

    def _problem(self, code: str, path: str, message: str) -> None:
        self.problems.append(Issue(code=code, path=path, message=message))


def live(releases: Sequence[Past]) -> Previous | None:
    """Return the document that is live; None before the first release and after a withdraw."""
    newest = max(releases, key=lambda r: r.generation, default=None)
    if newest is None or newest.version is None or newest.checksum is None:
        return None
    return Previous(version=newest.version, checksum=newest.checksum)


async def harmful_issues(service: ConstitutionService, data: bytes) -> list[Issue]:
    """Return what constitution-service holds against a document that was undone as harmful; none if the board does not.

    Asked by its bytes: an update's document may not have been pushed yet.
    """
    return issues_among((await service.validate_files(data, ())).issues)


def succession_issues(
    parsed: Constitution,
    checksum: str,
    releases: Sequence[Past],
    environment: str,
    now: datetime,
    *,
    harmful: Sequence[Issue],
) -> list[Issue]:
    """Return why a document may not go live after these releases; empty if it may.

    Args:
        parsed: the document.
        checksum: of it.
        releases: all of the environment.
        environment: its name.
        now: aware.
        harmful: of `harmful_issues`; of a poisoned document that has none, the board has signed that it may come again.
    """
    versions = versions_before(releases, checksum, reissued=not harmful)
    issues = list(
        validity.check(
            parsed,
            kind=Kind.UPDATE,
            environment=environment,
            current=live(releases),
            highest_version=max(versions, key=Version.parse, default=None),
            now=now,
        )
    )
    return [*issues, *harmful]


def require_succession(
    parsed: Constitution,
    checksum: str,
    releases: Sequence[Past],
    environment: str,
    now: datetime,
    *,
    harmful: Sequence[Issue],
) -> None:
    """Demand that the document may still go live.

    Raises:
        InvalidDocumentError: the live release or the time has changed; every reason is listed.
    """
    issues = succession_issues(parsed, checksum, releases, environment, now, harmful=harmful)
    if issues:
        raise InvalidDocumentError(
            f"version {parsed.version} may no longer go live: something has changed since the board decided",
            issues=issues,
            hint="constitution current  # shows what is live: draft, sign and push again",
        )
