"""The shipped examples: each rule decides something, and the golden vectors say what."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from constitution.errors import InvalidDocumentError, InvalidRequestError, NotFoundError
from constitution.policy import golden
from constitution.policy.document import Constitution, parse
from constitution.policy.draft import fill
from constitution.policy.evaluation import Decision, EvaluationRequest
from constitution.policy.rules import Policy
from constitution.release import Previous
from constitution.templates import TEMPLATES, template
from tests.unit.keyring import DATA, NOW, document

LIVE = Previous(version="1.0.0", checksum="sha256:" + "a" * 64)


def filled(name: str | bytes, **changes: Any) -> bytes:
    usual: dict[str, Any] = {
        "version": "1.1.0",
        "environment": "development",
        "issued_at": NOW,
        "expires_at": NOW + timedelta(days=365),
        "previous": LIVE,
    }
    return fill(name, **{**usual, **changes})


def vectors(name: str) -> tuple[golden.Vector, ...]:
    return golden.load((DATA / "golden" / f"{name}.json").read_bytes())


def compiled(name: str) -> Policy:
    return Policy.compile(parse(filled(name)))


@pytest.mark.parametrize("name", TEMPLATES)
def test_every_template_makes_a_document_with_all_four_decisions(name: str) -> None:
    read = parse(filled(name))
    assert isinstance(read, Constitution)
    assert {rule.effect for rule in read.rules} == set(Decision)
    assert read.default_effect is Decision.DENY
    assert (read.version, read.environment, read.previous) == ("1.1.0", "development", LIVE)
    assert 15 <= len(read.rules) <= 45
    assert {rule.principle for rule in read.rules} == {principle.id for principle in read.principles}


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_rule_over_free_text_says_in_its_message_what_it_finds_or_what_to_do(name: str) -> None:
    over_text = [rule for rule in parse(filled(name)).rules if "prompt.matches" in rule.when]
    assert over_text
    assert [rule.id for rule in over_text if len(rule.message.split(". ")) < 2] == []


@pytest.mark.parametrize("name", ["tool-use", "data-handling", "escalation"])
def test_the_golden_vectors_hold_and_each_rule_decides_one(name: str) -> None:
    asked = vectors(name)
    assert golden.run(compiled(name), asked) == ()
    assert {vector.rule for vector in asked if vector.rule} == {rule.id for rule in parse(filled(name)).rules}


def test_no_vector_of_an_earlier_template_is_lost_in_a_later_one() -> None:
    assert set(vectors("tool-use")) < set(vectors("escalation"))


def test_lockdown_passes_what_its_authors_thought_of_and_refuses_the_fleet() -> None:
    policy = compiled("lockdown")
    assert golden.run(policy, vectors("escalation")) == ()
    before = compiled("escalation")
    for agent in ("billing-eu", "support", "research-7"):
        request = EvaluationRequest(
            tenant="global", user="u", agent=agent, tool="search.web", action="search", time=NOW
        )
        assert before.evaluate(request).decision is Decision.ALLOW
        assert policy.evaluate(request).rule == "deny-unregistered-agent"


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_rule_errs(name: str) -> None:
    policy = compiled(name)
    for vector in vectors("escalation"):
        assert policy.evaluate(vector.request).errors == 0


class TestGolden:
    def test_a_mismatch_is_said_in_words(self) -> None:
        vector = vectors("tool-use")[0].model_copy(
            update={"decision": Decision.ALLOW, "rule": "x", "reason": "default"}
        )
        (said,) = golden.run(compiled("tool-use"), (vector,))
        what = ["decided deny, not allow", "by rule deny-unknown-tool, not x", "for reason rule, not default"]
        assert said == "deny-unknown-tool: " + ", ".join(what)

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"[]",
            b'{"vectors": []}',
            b'{"vectors": [{"name": "a"}]}',
            json.dumps({"vectors": [json.loads(vectors("tool-use")[0].model_dump_json())] * 2}).encode(),
        ],
    )
    def test_a_file_that_asks_nothing_is_refused(self, data: bytes) -> None:
        with pytest.raises(InvalidRequestError):
            golden.load(data)


class TestFill:
    def test_another_constitution_can_be_the_start(self) -> None:
        effective = NOW + timedelta(days=1)
        earlier = filled("tool-use", effective_at=effective, title="Old")
        later = parse(filled(earlier, version="1.2.0", previous=None, title="New", summary="Said anew."))
        assert (later.version, later.title, later.summary) == ("1.2.0", "New", "Said anew.")
        assert later.previous is None
        assert later.effective_at is None
        assert parse(earlier).effective_at == effective.replace(microsecond=0)

    def test_instants_are_written_in_utc(self) -> None:
        moment = datetime.fromisoformat("2026-01-01T01:00:00+02:00")
        assert json.loads(filled("tool-use", issued_at=moment))["issued_at"] == "2025-12-31T23:00:00Z"
        assert parse(filled("tool-use", issued_at=moment)).issued_at == moment.astimezone(UTC)

    def test_the_same_input_gives_the_same_bytes(self) -> None:
        assert filled("escalation") == filled("escalation") == filled(template("escalation"))

    @pytest.mark.parametrize("start", [b"", b"[]", b'{"rules": 1}'])
    def test_a_template_that_is_none_is_refused(self, start: bytes) -> None:
        with pytest.raises(InvalidDocumentError):
            filled(start)

    def test_what_would_not_be_valid_is_not_made(self) -> None:
        with pytest.raises(InvalidDocumentError):
            filled("tool-use", version="1.0.0")
        with pytest.raises(InvalidDocumentError):
            filled(json.dumps(document(surprise=1)).encode())

    def test_an_unknown_name_is_refused(self) -> None:
        with pytest.raises(NotFoundError, match="there is no template"):
            filled("../secrets")
