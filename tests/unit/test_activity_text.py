"""Text of strangers does no harm in Slack blocks and in Markdown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities import blocks
from activities.folder import folder_of
from activities.text import is_web_address, markdown_text, one_line, slack_text
from activities.watch.query import history_seconds, selector
from constitution.environment import Strategy
from constitution.errors import InvalidRequestError


@given(st.text())
def test_slack_text_holds_no_control_character_of_slack(text: str) -> None:
    shown = slack_text(text)
    assert "<" not in shown
    assert ">" not in shown
    assert len(shown.splitlines()) <= 1


@given(st.text())
def test_markdown_text_breaks_no_table_and_links_nowhere(text: str) -> None:
    shown = markdown_text(text)
    assert not set(shown) & set("|<>[]()`*_\\!~@\n\r\u2028\u202e")
    assert "://" not in shown
    assert "www." not in shown.lower()


@given(st.text(), st.integers(min_value=1, max_value=50))
def test_one_line_is_one_line_of_at_most_its_limit(text: str, limit: int) -> None:
    shown = one_line(text, limit)
    assert len(shown) <= limit
    assert len(shown.splitlines()) <= 1


def test_text_that_says_nothing_special_stays_readable() -> None:
    assert markdown_text("alva, bruno") == "alva, bruno"
    assert markdown_text("sha256:00 at https://x.y, WWW.z") == "sha256:00 at https&#58;//x.y, WWW&#46;z"
    assert slack_text("Spending limits: 500 EUR & more") == "Spending limits: 500 EUR &amp; more"
    assert one_line("right\u202eleft\x00\n next") == "rightleft next"


@pytest.mark.parametrize(
    "url", ["javascript:alert(1)", "https://a|b", "https://a>b", "https://a b", "ftp://a", "", "https://a'b"]
)
def test_only_plain_web_addresses_become_links(url: str) -> None:
    assert not is_web_address(url)
    assert blocks.addresses({"x": url}) is None


def test_blocks_stay_within_slacks_limits() -> None:
    long = "x" * 10_000
    assert len(blocks.header(long)["text"]["text"]) == 150
    paragraph = blocks.paragraph([long])
    assert paragraph is not None
    assert len(paragraph["text"]["text"]) == 3000
    facts = blocks.facts([(str(n), long) for n in range(20)])
    assert facts is not None
    assert len(facts["fields"]) == 10
    assert all(len(f["text"]) <= 2000 for f in facts["fields"])
    assert blocks.diff_lines(tuple(str(n) for n in range(25)))[-1] == "… and 5 more"


@pytest.mark.parametrize("version", ["../../x", "1.0.0/..", "1.0", "1.0.0\n", "", "1.0.0-rc", "\u0661.\u0660.\u0660"])
def test_a_hostile_version_names_no_folder(version: str) -> None:
    with pytest.raises(InvalidRequestError):
        folder_of(version, 1)


def test_folders_are_named_by_version_and_generation() -> None:
    assert folder_of("1.4.0", 7) == "docs/legal/constitution/1.4.0-7"
    assert folder_of(None, 8) == "docs/legal/constitution/withdrawn-8"


def test_a_watch_query_leaves_the_probe_out_and_quotes_names() -> None:
    query = selector(["global", 'a"b.c'], ["engine-1"])
    assert query.startswith('policy_engine_evaluations_total{tenant!="runbook-probe",tenant=~"')
    regex = json.loads(query.split("tenant=~", 1)[1].split(",target", 1)[0])
    assert regex == 'a"b\\.c|global'
    assert query.endswith('target=~"engine\\\\-1"}')


def test_a_short_baseline_reads_itself_and_a_long_one_six_times_as_much() -> None:
    assert history_seconds(Strategy(baseline_seconds=30, scrape_seconds=1)) == 32
    assert history_seconds(Strategy(baseline_seconds=3600)) == 6 * 3600
    assert history_seconds(Strategy(baseline_seconds=8 * 3600)) == 8 * 3600
