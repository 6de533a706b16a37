"""The evidence of a watch: written by the live watch, judged again by anyone, shown in words, plots and images."""

import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activities.watch.live import LiveWatch
from activities.watch.plan import plan
from constitution.environment import Strategy, WatchedQuantity
from constitution.release import Verdict
from constitution.watch.evidence import WatchEvidence
from constitution.watch.prediction import Expected
from constitution_client.main import run

METRIC = "policy_engine_evaluations_total"
PUBLISHED = 1_800_000_000.0
SECONDS = 60


def counters(
    deny_after: float, *, deny_before: float = 5.0, allow: float = 45.0, seed: int = 3
) -> list[dict[str, Any]]:
    """Samples of two counters, once a second: two minutes before publish and one after it."""
    dice = random.Random(seed)  # noqa: S311 - traffic, no secret
    series = []
    for decision, before, after in (("allow", allow, allow), ("deny", deny_before, deny_after)):
        total, values = 100.0, []
        for second in range(-120, SECONDS + 3):
            rate = before if second <= 0 else after
            total += sum(dice.random() < rate / 100 for _ in range(100))
            values.append([PUBLISHED + second + 0.25, str(total)])
        labels = {"decision": decision, "severity": "high", "instance": "a", "job": "j"}
        series.append({"metric": labels, "values": values})
    return series


def judged(
    strategy: Strategy, samples: list[dict[str, Any]], expected: dict[str, Expected] | None = None
) -> WatchEvidence:
    watched = plan(strategy, SECONDS, expected or {})
    matrices = {METRIC: samples}
    live = LiveWatch(matrices, watched, published_s=PUBLISHED, end_s=PUBLISHED + SECONDS, level_s=120, left_out=[])
    live.advance(matrices, PUBLISHED + SECONDS + 2)
    reading = live.closing()
    assert reading.verdict is not None
    end = datetime.fromtimestamp(PUBLISHED + SECONDS, UTC)
    return WatchEvidence(
        environment="testing",
        update_id="u",
        generation=2,
        strategy=strategy,
        test_evidence=None,
        published_at=end - timedelta(seconds=SECONDS),
        ends_at=end,
        alpha=live.watch.alpha,
        limit=live.watch.limit,
        log_e=tuple(live.trace),
        verdict=reading.verdict,
        reason=live.reason(reading),
        decided_at=live.decided_at(reading, end),
        leading=live.watch.leading(reading)[0],
        quantities=live.quantities(reading, dict.fromkeys(watched, "query"), expected or {}),
        samples={METRIC: samples},
    )


def strategy(*quantities: WatchedQuantity, **changes: Any) -> Strategy:
    return Strategy(
        scrape_seconds=1, baseline_seconds=120, watch_seconds=SECONDS, quantities=quantities, min_rate=0, **changes
    )


SHARES = (
    WatchedQuantity(quantity="deny_share", weight=3, direction="up"),
    WatchedQuantity(quantity="evaluations", weight=1),
    WatchedQuantity(quantity="severe_share", weight=1, required=False),
)


def test_a_family_finds_what_one_of_its_quantities_sees_and_names_it() -> None:
    found = judged(strategy(*SHARES), counters(deny_after=20))
    assert (found.verdict, found.leading) == (Verdict.ANOMALY, "deny_share")
    assert found.reason.startswith("deny_share: ")
    assert sum(one.weight for one in found.quantities.values()) == pytest.approx(1)
    assert found.quantities["deny_share"].parameters.alpha == pytest.approx(0.01 * 0.6)
    assert found.decided_at.timestamp() < PUBLISHED + SECONDS
    assert found.log_e[-1][1] is not None
    assert found.log_e[-1][1] >= found.limit


def test_a_family_is_ok_only_when_each_required_quantity_is() -> None:
    calm = judged(strategy(*SHARES), counters(deny_after=5))
    assert calm.verdict is Verdict.OK, calm.reason
    burning = counters(deny_before=30, deny_after=30, allow=20)
    assert judged(strategy(*SHARES), burning).verdict is Verdict.CANNOT_TELL
    advisory = (WatchedQuantity(quantity="evaluations"), WatchedQuantity(quantity="deny_share", required=False))
    assert judged(strategy(*advisory), burning).verdict is Verdict.OK


def test_an_approved_rise_is_not_an_anomaly_and_a_higher_one_is() -> None:
    one = (WatchedQuantity(quantity="deny_share", direction="up"),)
    approved = {"deny_share": Expected(up=2.2)}
    doubled = counters(deny_after=9.5)
    assert judged(strategy(*one), doubled).verdict is Verdict.ANOMALY
    assert judged(strategy(*one), doubled, approved).verdict is Verdict.OK
    assert judged(strategy(*one), counters(deny_after=30), approved).verdict is Verdict.ANOMALY


def test_an_approved_rise_never_loosens_the_watch_of_a_rate() -> None:
    rate = (WatchedQuantity(quantity="evaluations"),)
    approved = {"deny_share": Expected(up=50.0), "evaluations": Expected(up=50.0)}
    assert judged(strategy(*rate), counters(deny_after=60), approved).verdict is Verdict.ANOMALY


def test_an_expected_rise_that_leaves_nothing_to_see_is_never_ok() -> None:
    one = (WatchedQuantity(quantity="deny_share", direction="up"),)
    blind = judged(strategy(*one), counters(deny_after=60), {"deny_share": Expected(up=9.0)})
    assert blind.verdict is Verdict.CANNOT_TELL
    assert "nothing more could be seen" in blind.reason
    added = judged(strategy(*one), counters(deny_before=0, deny_after=45), {"deny_share": Expected(added=0.7)})
    assert added.verdict is Verdict.CANNOT_TELL


def test_the_file_is_shown_in_words_and_as_a_plot_and_written_as_an_image(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evidence = judged(strategy(*SHARES), counters(deny_after=20))
    file = tmp_path / "watch.json"
    file.write_text(evidence.model_dump_json())
    assert WatchEvidence.read(file.read_bytes()) == evidence
    assert run(["watch", "show", "--file", str(file), "--text", "--out", str(tmp_path / "w.svg")]) == 0
    shown = capsys.readouterr().out
    assert "anomaly: deny_share" in shown
    assert "seconds after publish" in shown
    assert "\x1b" not in shown
    assert (tmp_path / "w.svg").read_text().lstrip().startswith("<?xml")
    assert run(["watch", "show", "--file", str(file), "--out", str(tmp_path / "w.png"), "--json"]) == 0
    assert (tmp_path / "w.png").read_bytes().startswith(b"\x89PNG")
    said = json.loads(capsys.readouterr().out)
    assert (said["verdict"], said["leading"]) == ("anomaly", "deny_share")
    assert "samples" not in said


def test_what_is_no_evidence_is_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "watch.json"
    file.write_text("{}")
    assert run(["watch", "show", "--file", str(file)]) == 1
    assert "no evidence of a watch" in capsys.readouterr().err
    assert run(["watch", "show"]) == 2
    assert run(["watch", "show", "--file", str(tmp_path / "none.json")]) == 1
    file.write_text(judged(strategy(), counters(deny_after=5)).model_dump_json())
    assert run(["watch", "show", "--file", str(file), "--out", str(tmp_path / "w.gif")]) == 2
    assert ".svg or .png" in capsys.readouterr().err
