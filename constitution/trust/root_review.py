"""When somebody must look at the pinned Sigstore root again.

A pinned file does not hear of a key that was retired or stolen, and does not grow the key of a log that began since.
So the trust policy says until when its root was reviewed. A root past that day counts on: what is live was signed
under it, and a date must not stop a fleet. It is reported until somebody has looked.
"""

from datetime import date

from constitution.trust.trust_policy import TrustPolicy


def overdue_root(trust: TrustPolicy, today: date) -> str | None:
    """Return what is to be said about a pinned root that nobody has reviewed in time; None where all is well.

    Args:
        trust: that pins it.
        today: in UTC.
    """
    root = trust.sigstore
    if root is None:
        return None
    if root.review_by is None:
        return f"the pinned Sigstore root {root.trusted_root} has no review_by: nobody has to look at it again"
    if today <= root.review_by:
        return None
    return f"the pinned Sigstore root {root.trusted_root} was to be reviewed by {root.review_by.isoformat()}"
