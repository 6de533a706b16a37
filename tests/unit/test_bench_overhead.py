"""What durability costs: the summary and its table."""

from typing import Any

import pytest

from bench.overhead import PEERS, PRODUCT, summarised
from bench.peers.calls import CALLS
from bench.ratios import ratios
from bench.tables import TABLES


def samples(**seconds: float) -> list[dict[str, Any]]:
    return [
        {"kind": kind, "seconds": one + wobble, "calls": [(name, one / len(CALLS)) for name in CALLS]}
        for kind, one in seconds.items()
        for wobble in (-0.01, 0.0, 0.01)
    ]


@pytest.mark.parametrize(("product", "words"), [(0.499, "200 ms, goal 300 ms: met"), (0.7, "NOT met: 101 ms too slow")])
def test_the_product_is_compared_with_the_bare_script(product: float, words: str) -> None:
    found = summarised(samples(product=product, bare=0.299, dbos=0.4, prefect=1.5))
    result = {"name": "overhead", "summary": found}
    assert list(found["whole"]) == [PRODUCT, *PEERS]
    assert found["above_bare"]["product"] == pytest.approx(product - 0.299)
    assert ratios(result) == {"last approval to proved": pytest.approx(product / 0.299)}
    table = TABLES["overhead"](result)
    assert words in table
    assert all(f"| `{name}` |" in table for name in CALLS)
