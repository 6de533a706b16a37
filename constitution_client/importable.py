"""Modules that no installed client has: they are in a checkout, or in the image."""

from collections.abc import Sequence
from importlib.util import find_spec


def require_importable(names: Sequence[str], what: str, *, hint: str) -> None:
    """Go on only where every module is there; none is imported but their parents.

    Raises:
        UsageError: some are missing; named after `what`, which says what needs them.
    """
    from constitution_client.settings import UsageError

    absent = [name for name in names if not _is_there(name)]
    if absent:
        raise UsageError(f"{what}; missing: {', '.join(absent)}", hint=hint)


def _is_there(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except ModuleNotFoundError:
        return False
