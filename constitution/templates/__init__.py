"""Constitutions that ship as examples. `constitution.policy.draft.fill` makes documents of them.

``tool-use``, ``data-handling`` and ``escalation`` build on each other: a fleet can start with the first and grow.
``lockdown`` is a mistake of the kind that reviews miss: it passes every test that its authors thought of, and refuses
every agent whose name is not ``agent-<number>``. It ships to show, on a real fleet, what the watch is for.
"""

from importlib import resources

from constitution.errors import NotFoundError

TEMPLATES = ("tool-use", "data-handling", "escalation", "lockdown")
"""Names of the shipped templates."""


def template(name: str) -> bytes:
    """Return a shipped template.

    Raises:
        NotFoundError: there is none of that name.
    """
    if name not in TEMPLATES:
        raise NotFoundError(f"there is no template {name[:64]!r}", hint=f"shipped: {', '.join(TEMPLATES)}")
    return resources.files(__name__).joinpath(f"{name}.json").read_bytes()
