"""A document that was undone because of what it says (standing *poisoned*), and how each refusal of it is worded. Pure.

It goes live again by the board's signed override alone: an approval of kind *reissue*, for one change request.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from constitution.errors import Issue

CODES = frozenset({"poisoned", "poisoned-rules", "reissue"})
"""Codes of the issues that only an override takes away: what was undone, and why the overrides do not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Poisoned:
    """A release that was undone as harmful.

    Args:
        at: when it was called so.
        same_rules: it speaks against other bytes, with the same rules (constitution/policy/same_rules.py).
    """

    generation: int
    version: str
    checksum: str
    reason: str
    at: datetime
    same_rules: bool = False

    def of_same_rules(self) -> "Poisoned":
        """Return it as what speaks against another document with these rules."""
        return replace(self, same_rules=True)

    def issue(self) -> Issue:
        """Return it as what is wrong with the document that it speaks against."""
        if self.same_rules:
            return Issue(
                code="poisoned-rules",
                path="/rules",
                message=f"the rules are those of {self.version}, generation {self.generation}, which was undone as "
                f"harmful: {self.reason}",
                hint=f"constitution diff {self.checksum}",
            )
        return Issue(
            code="poisoned",
            path="/checksum",
            message=f"generation {self.generation} of this document was undone as harmful: {self.reason}",
            hint=f"constitution show {self.generation}",
        )


def issues_among(issues: Iterable[Issue]) -> list[Issue]:
    """Return those that an override would take away."""
    return [issue for issue in issues if issue.code in CODES]
