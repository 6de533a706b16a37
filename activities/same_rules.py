"""What a draft's rules were before: lines of the gate's diff that no comparison with the live document shows.

Read from constitution-service's public record, so that the assessor says it too, and the board reads it in the evidence
that it signs. The refusal itself is the service's (services/constitution_service/artifacts/harmful.py).
"""

from activities.past_releases import past_releases
from activities.ports import ConstitutionService
from constitution.errors import NotFoundError
from constitution.past import Past
from constitution.policy.document import Constitution, parse
from constitution.policy.poison import Poisoned
from constitution.policy.same_rules import rules_digest
from constitution.release import Standing


async def named(service: ConstitutionService, draft: Constitution, checksum: str, live: bytes | None) -> list[str]:
    """Return a line for the live document and for each release undone as harmful that has the rules of ``draft``.

    Rules that are live again may be published again: of those, only these very bytes are named.

    Args:
        service: knows what was released.
        draft: what is tested.
        checksum: its own.
        live: the document that it follows.

    Raises:
        UnavailableError: constitution-service does not answer.
    """
    digest, lines = rules_digest(draft), []
    before = None if live is None else parse(live)
    if is_live := before is not None and rules_digest(before) == digest:
        lines.append(f"SAME RULES as the live version {before.version}: no request is decided otherwise")
    for known, harmful in (await _undone(service)).items():
        if known == checksum:
            lines.append(f"UNDONE BEFORE: {harmful.issue().message}")
        elif not is_live and await _has_rules(service, known, digest):
            lines.append(f"UNDONE BEFORE: {harmful.of_same_rules().issue().message}")
    return lines


async def _undone(service: ConstitutionService) -> dict[str, Poisoned]:
    """Return what was undone as harmful, by checksum: the newest release of each document."""
    return {found.checksum: found for release in await past_releases(service) if (found := _poisoned(release))}


def _poisoned(release: Past) -> Poisoned | None:
    stood = next((one for one in reversed(release.standings) if one.standing is Standing.POISONED), None)
    if stood is None or release.checksum is None:
        return None
    return Poisoned(
        generation=release.generation,
        version=release.version or "",
        checksum=release.checksum,
        reason=stood.reason,
        at=stood.recorded_at,
    )


async def _has_rules(service: ConstitutionService, checksum: str, digest: str) -> bool:
    try:
        return rules_digest(parse(await service.artifact(checksum))) == digest
    except NotFoundError:
        return False
