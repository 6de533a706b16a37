"""An attack, the defence that is taken away, and the tests that must then fail."""

from dataclasses import dataclass

from tests.world.without import Edit


@dataclass(frozen=True, slots=True)
class Mutant:
    """One defence less.

    Args:
        attack: what succeeds without it, as docs/threat-model.md calls it, attack by attack.
        edits: each place where the defence is.
        tests: pytest ids; at least one must fail.
        servers: the tests start servers.
    """

    attack: str
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]
    servers: bool = False
