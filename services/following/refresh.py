"""A forced refresh, as an HTTP answer: a wrong answer of the *service* is no error of our caller."""

from constitution.errors import ContentError, UnavailableError
from constitution.policy.consumer_api import PolicyStatus
from constitution_follow.replica import Replica


async def refreshed(follower: Replica) -> PolicyStatus:
    """Read and verify the whole current constitution now.

    Raises:
        UnavailableError: no answer, or one that does not verify; what was obeyed still is.
    """
    try:
        return await follower.refresh()
    except ContentError as error:
        raise UnavailableError(f"the current constitution could not be verified: {error.message}") from error
