"""What a document changes, in lines that a board member reads before signing. Pure."""

from constitution.policy.document import Constitution, Principle, Rule
from constitution.policy.lapse import STRICTNESS

LOOSENED = "  LOOSENED: more is allowed than before"


def diff(old: Constitution | None, new: Constitution | None) -> tuple[str, ...]:
    """Return one line per change in meaning: rules, principles, default effect, expiry; empty if there is none.

    Args:
        old: what is live; None for nothing.
        new: what shall be; None for nothing (a withdraw).
    """
    if new is None:
        return () if old is None else (f"withdraw {old.version}: no constitution is live, everything is denied",)
    lines: list[str] = []
    if old is None:
        lines.append(f"first constitution, version {new.version}")
        lines.append(f"default effect: {new.default_effect}")
        lines.append(f"expires {new.expires_at.isoformat()}")
    else:
        if old.version != new.version:
            lines.append(f"version {old.version} -> {new.version}")
        if old.environment != new.environment:
            lines.append(f"environment {old.environment} -> {new.environment}")
        if old.default_effect is not new.default_effect:
            lines.append(f"default effect: {old.default_effect} -> {new.default_effect}")
        if old.expires_at != new.expires_at:
            lines.append(f"expires {old.expires_at.isoformat()} -> {new.expires_at.isoformat()}")
        if old.effective_at != new.effective_at and new.effective_at is not None:
            lines.append(f"effective at {new.effective_at.isoformat()}")
    lines += _end(old, new)
    lines += _rules(old.rules if old else (), new.rules)
    lines += _principles(old.principles if old else (), new.principles)
    return tuple(lines)


def _end(old: Constitution | None, new: Constitution) -> list[str]:
    """Say what the document says about its own end; what becomes milder is marked, because it lets more happen."""
    if old is None:
        grace = f"{new.expiry_grace} s after it has expired" if new.expiry_grace else "as soon as it has expired"
        return [f"on expiry: {new.on_expiry}, {grace}", f"while nobody confirms that it is live: {new.on_stale}"]
    lines = []
    for name, was, becomes in (
        ("on expiry", old.on_expiry, new.on_expiry),
        ("while nobody confirms that it is live", old.on_stale, new.on_stale),
    ):
        if was is not becomes:
            milder = STRICTNESS.index(becomes) < STRICTNESS.index(was)
            lines.append(f"{name}: {was} -> {becomes}{LOOSENED if milder else ''}")
    if old.expiry_grace != new.expiry_grace:
        milder = new.expiry_grace > old.expiry_grace
        lines.append(f"grace after expiry: {old.expiry_grace} s -> {new.expiry_grace} s{LOOSENED if milder else ''}")
    return lines


def _rules(old: tuple[Rule, ...], new: tuple[Rule, ...]) -> list[str]:
    before, after = {rule.id: rule for rule in old}, {rule.id: rule for rule in new}
    lines = [f"rule removed: {_summary(before[i])}" for i in before if i not in after]
    lines += [f"rule added: {_summary(after[i])}" for i in after if i not in before]
    for rule_id, rule in after.items():
        earlier = before.get(rule_id)
        if earlier is None or earlier == rule:
            continue
        for name in ("effect", "severity", "when", "message", "principle"):
            was, becomes = str(getattr(earlier, name)), str(getattr(rule, name))
            if was != becomes:
                lines.append(f"rule changed: {rule_id}: {name}: {_one_line(was)} -> {_one_line(becomes)}")
    common_before = [i for i in before if i in after]
    common_after = [i for i in after if i in before]
    if common_before != common_after:
        lines.append("rules reordered: among matches of one effect and severity the first is reported")
    return lines


def _principles(old: tuple[Principle, ...], new: tuple[Principle, ...]) -> list[str]:
    before, after = {p.id: p.text for p in old}, {p.id: p.text for p in new}
    lines = [f"principle removed: {i}: {_one_line(before[i])}" for i in before if i not in after]
    lines += [f"principle added: {i}: {_one_line(after[i])}" for i in after if i not in before]
    lines += [
        f"principle changed: {i}: {_one_line(before[i])} -> {_one_line(after[i])}"
        for i in after
        if i in before and before[i] != after[i]
    ]
    return lines


def _summary(rule: Rule) -> str:
    return f"{rule.id}: {rule.effect} ({rule.severity}) when {_one_line(rule.when)}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
