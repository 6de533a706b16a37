"""Why a release was confirmed, in one sentence that standing, archive, status, channel and audit stream share."""

from constitution.release import Verdict

SYNCED = "every target obeys"

_WATCHED = {
    Verdict.OK: "the watch said ok",
    Verdict.ANOMALY: "the watch said anomaly",
    Verdict.NO_DATA: "the watch had no data",
    Verdict.CANNOT_TELL: "the watch cannot tell",
    Verdict.NOT_WATCHED: "not watched, as the strategy says",
    Verdict.NOT_APPLICABLE: "engines decide as the golden vectors say; a first release has nothing to be compared with",
}


def confirmation_reason(
    verdict: Verdict | None, *, promoted_by: str = "", resumed: str | None = None, cut_short: bool = False
) -> str:
    """Return the grounds of a confirmation: what the watch saw, and who decided where that was not enough.

    Args:
        verdict: of the watch; None: unknown (a run that was reset after its confirmation).
        promoted_by: ids of the board members whose signed order confirmed it; empty: nobody's.
        resumed: who ended a hold, and why, as in ``olga: looked at it``; None: no hold was ended.
        cut_short: the promotion came before the watch had ended, so the watch has no verdict.
    """
    parts = [SYNCED]
    if cut_short:
        parts.append("the watch had not ended")
    elif verdict is not None:
        parts.append(_WATCHED[verdict])
    if promoted_by:
        parts.append(f"promoted by {promoted_by}")
    elif resumed is not None:
        parts.append(f"a hold was ended by {resumed}")
    elif verdict in (Verdict.ANOMALY, Verdict.NO_DATA, Verdict.CANNOT_TELL):
        parts.append("and the strategy goes on then")
    return "; ".join(parts)
