"""The expected change: exact intervals, paired counts, what is told to the board, and what the watch may tolerate."""

import json
import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import comb

import pytest
import rfc8785
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from constitution.listing import NAMED
from constitution.policy.document import parse
from constitution.policy.evaluation import Decision, EvaluationRequest
from constitution.policy.rules import Policy
from constitution.watch.binomial import at_least, clopper_pearson, sign_test
from constitution.watch.prediction import (
    ALPHA,
    MIN_REQUESTS,
    PairCounts,
    Prediction,
    ReplayCounts,
    predict,
    predict_share,
    replay,
)
from tests.world.documents import RULES, document, rule

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)


def exactly_at_least(k: int, n: int, p: Fraction) -> Fraction:
    return sum((comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1)), Fraction(0))


@given(n=st.integers(1, 60), share=st.fractions(Fraction(1, 1000), Fraction(999, 1000)), data=st.data())
@settings(deadline=None)
def test_the_binomial_tail_is_the_exact_sum(n: int, share: Fraction, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    assert at_least(k, n, float(share)) == pytest.approx(float(exactly_at_least(k, n, share)), rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("alpha", [0.05, 0.01])
def test_an_interval_covers_every_true_share_as_often_as_it_says(n: int, alpha: float) -> None:
    intervals = [clopper_pearson(k, n, alpha) for k in range(n + 1)]
    for thousandth in range(1, 1000, 7):
        p = Fraction(thousandth, 1000)
        covered = sum(
            comb(n, k) * p**k * (1 - p) ** (n - k) for k, (low, high) in enumerate(intervals) if low <= p <= high
        )
        assert covered >= 1 - alpha - 1e-9, (n, p)


def test_known_figures_come_out() -> None:
    low, high = clopper_pearson(10, 100, 0.05)
    assert low == pytest.approx(0.0490047, abs=1e-7)
    assert high == pytest.approx(0.1762226, abs=1e-7)
    assert clopper_pearson(0, 0, 0.05) == (0.0, 1.0)
    assert clopper_pearson(0, 100, 0.05)[1] == pytest.approx(1 - 0.025 ** (1 / 100))
    assert sign_test(5, 0) == pytest.approx(2 / 32)
    assert sign_test(0, 0) == 1.0
    with pytest.raises(ValueError, match="no interval"):
        clopper_pearson(3, 2, 0.05)


def test_the_ratio_of_paired_counts_is_covered_as_often_as_it_says() -> None:
    dice = random.Random(11)  # noqa: S311 - traffic, no secret
    p_both, p_newly, p_no_longer, n = 0.10, 0.05, 0.02, 600
    truth = (p_both + p_newly) / (p_both + p_no_longer)
    missed = 0
    for _ in range(400):
        both = newly = no_longer = 0
        for _ in range(n):
            x = dice.random()
            both += x < p_both
            newly += p_both <= x < p_both + p_newly
            no_longer += p_both + p_newly <= x < p_both + p_newly + p_no_longer
        share = predict_share(PairCounts(current=both + no_longer, candidate=both + newly, both=both), n)
        assert share.ratio_high is not None
        missed += not share.ratio_low <= truth <= share.ratio_high
    assert missed <= 4  # alpha = 1 %, and the bounds are conservative


def counted(current: int, candidate: int, both: int, requests: int = 2000) -> Prediction:
    pair = PairCounts(current=current, candidate=candidate, both=both)
    counts = ReplayCounts(
        requests=requests,
        span_s=7200,
        current={Decision.DENY: current, Decision.ALLOW: requests - current},
        candidate={Decision.DENY: candidate, Decision.ALLOW: requests - candidate},
        quantities={"deny_share": pair},
    )
    return predict({"engine-1": counts})


def test_a_tightening_is_expected_up_to_its_upper_bound_and_nothing_below() -> None:
    tightened = counted(200, 500, 200)
    share = tightened.quantities["deny_share"]
    assert (share.shift, share.ratio) == ("rise", 2.5)
    expected = tightened.expected("deny_share")
    assert expected.up == share.ratio_high
    assert 2.5 < expected.up < 3.5
    assert (expected.down, expected.added) == (1.0, 0.0)
    assert any("a rise up to that is expected" in line for line in tightened.lines())


def test_a_release_that_changes_nothing_loosens_nothing() -> None:
    same = counted(200, 200, 200)
    assert same.quantities["deny_share"].shift == "none"
    assert same.expected("deny_share") == type(same.expected("deny_share"))()
    swapped = counted(200, 204, 190)  # 14 newly, 10 no longer: chance
    assert swapped.expected("deny_share").up == 1.0


def test_a_loosening_is_expected_downwards_only() -> None:
    expected = counted(500, 200, 200).expected("deny_share")
    assert expected.up == 1.0
    assert 0.2 < expected.down < 0.4


def test_where_nothing_was_refused_before_the_share_is_added() -> None:
    prediction = counted(0, 100, 0)
    assert prediction.quantities["deny_share"].ratio is None
    expected = prediction.expected("deny_share")
    assert expected.up == 1.0
    assert 0.05 < expected.added < 0.08


def test_the_number_of_evaluations_is_never_predicted() -> None:
    assert counted(200, 1900, 200).expected("evaluations").up == 1.0
    assert counted(200, 1900, 200).expected("engine_errors").up == 1.0


def test_too_few_requests_say_so_and_expect_nothing() -> None:
    few = counted(10, 60, 10, requests=MIN_REQUESTS - 1)
    assert not few.enough
    assert few.quantities == {}
    assert few.expected("deny_share").up == 1.0
    assert few.lines()[0].startswith("not predicted: 199 recorded requests, 200 are needed")
    nobody = predict({}, silent=["engine-1: it did not answer"])
    assert not nobody.enough
    assert "engine-1: it did not answer" in "\n".join(nobody.lines())


def test_impossible_counts_are_refused() -> None:
    for pair in (PairCounts(current=1, candidate=1, both=2), PairCounts(current=90, candidate=90, both=0)):
        with pytest.raises(ValueError, match="cannot be"):
            predict_share(pair, 100)
    with pytest.raises(ValidationError):
        PairCounts(current=-1)


def test_a_prediction_survives_the_evidence_and_canonical_json() -> None:
    prediction = counted(200, 500, 200)
    data = rfc8785.dumps(prediction.model_dump(mode="json"))
    assert Prediction.model_validate(json.loads(data)) == prediction


def test_a_replay_counts_what_each_document_decides_and_nothing_of_the_requests() -> None:
    current = Policy.compile(parse(document("1.0.0")))
    candidate = Policy.compile(
        parse(document("1.1.0", rules=[*RULES, rule("no-writing", "deny", 'action == "read"', "low")]))
    )
    requests = [
        EvaluationRequest(tenant="acme", action=action, data_class=data_class, time=NOON + timedelta(hours=hours))
        for action in ("read", "write")
        for data_class in ("public", "secret")
        for hours in range(5)
    ]
    counts = replay(iter(requests), current=current, candidate=candidate, span_s=60)
    assert counts.requests == 20
    assert counts.current == {Decision.ALLOW: 5, Decision.DENY: 15, Decision.REQUIRE_APPROVAL: 0}
    assert counts.candidate == {Decision.ALLOW: 0, Decision.DENY: 20, Decision.REQUIRE_APPROVAL: 0}
    assert counts.quantities["deny_share"] == PairCounts(current=15, candidate=20, both=15)
    assert counts.quantities["severe_share"] == PairCounts(current=10, candidate=10, both=10)
    told = counts.model_dump_json()
    assert "acme" not in told
    assert "public" not in told


def test_a_prediction_says_whose_requests_it_is_made_of() -> None:
    assert "of everybody who reaches an engine" in counted(200, 500, 200).note


def test_the_level_of_a_bound_is_stated() -> None:
    assert counted(200, 500, 200).alpha == ALPHA == 0.01


def test_what_thousands_of_engines_told_is_said_in_a_few_lines() -> None:
    none = PairCounts(current=0, candidate=0, both=0)
    one = ReplayCounts(requests=1, span_s=60, current={}, candidate={}, quantities={"deny_share": none})
    silent = [f"silent-{n:05d}: did not answer" for n in range(5_000)]
    told = predict({f"engine-{n:05d}": one for n in range(5_000)}, silent=silent)
    assert told.requests == 5_000
    assert (len(told.engines), told.more_engines) == (NAMED, 5_000 - NAMED)
    assert (told.silent, told.more_silent) == (tuple(silent[:NAMED]), 5_000 - NAMED)
    lines = told.lines()
    assert "engine-00019 and 4,980 others" in lines[0]
    assert "no word from 4,980 more engines" in lines
    assert len(lines) < 50
    assert len(told.model_dump_json()) < 10_000
