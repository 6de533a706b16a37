"""A board member overrides *poisoned* for one change request: look first, then sign, then send."""

import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

from constitution.errors import NotApprovedError
from constitution.release import Kind
from constitution.trust.approval import BoardDecision
from constitution.trust.approval_rules import time_refusal
from constitution_client.connections import service_client, trust_policy
from constitution_client.output import one_line, progress, result
from constitution_client.prompting import confirm
from constitution_client.review import Proposal, Review
from constitution_client.settings import settings
from constitution_client.signing import Signing, SigningOptions
from signatures.statements import IN_TOTO, approval_bytes, verify_approval


async def reissue(
    change_request: str,
    options: SigningOptions,
    reason: str | None,
    *,
    valid_days: int,
    trust: Path | None,
    yes: bool,
    json: bool | None,
) -> None:
    """Show what was undone and why, ask, sign, send.

    Raises:
        NotFoundError: there is no such change request.
        UntrustedError: the key is no board member's, or the document does not verify.
        NotApprovedError: the signer wrote the change request; or what was signed elsewhere has expired.
        ContentError: what it asks for was never undone as harmful.
    """
    configured = settings()
    policy = trust_policy(configured, trust)
    signing = Signing.begin(options, policy, "board")
    now = datetime.now(UTC)
    stated = signing.stated(lambda envelope: verify_approval(envelope, policy, now))
    if stated is not None and (late := time_refusal(stated.issued_at, stated.expires_at, now)) is not None:
        raise NotApprovedError(f"the signed statement {late}", hint="write a new one with --print-statement")
    async with service_client(configured, writes=True) as service:
        asked = (await service.change_request(change_request)).request
        proposal = Proposal(kind=Kind.REISSUE, checksum=asked.checksum, change_request=asked.id, evidence=None)
        review = Review(service, policy, signing, proposal, lenient=False)
        predicate = await review.predicate(BoardDecision.APPROVE, reason, timedelta(days=valid_days), stated)
        payload = approval_bytes(predicate)
        signing.check(payload, IN_TOTO)
        for line in review.lines:
            progress(one_line(line))
        if (question := signing.asks("reissue")) is not None:
            confirm(question, yes=yes)
        envelope = signing.envelope(payload, IN_TOTO, json, change_request=asked.id)
        if envelope is None:
            return
        record = await service.reissue(asked.id, envelope)
    named, missing = shlex.quote(record.change_request), record.needed - len(record.signed_by)
    result(
        record.model_dump(mode="json"),
        [
            f"reissue  {record.checksum} by {record.change_request}",
            f"signed   {', '.join(record.signed_by)}; it takes {record.needed}",
            f"next: constitution reissue {named} --reason 'why'  # {missing} more of the board"
            if missing > 0
            else f"next: constitution update --checksum {record.checksum} --change-request {named}",
        ],
        json,
    )
