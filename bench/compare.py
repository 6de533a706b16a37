"""``python -m bench.compare``: is what was measured last slower than what bench/results.json records?

Exit 0: no ratio is. Exit 1: one is, and each is named. Exit 2: there is nothing to compare.
"""

import json
import sys

from bench.ratios import NAMES, RESULTS, slower
from bench.results import load


def main() -> int:
    """Compare, and say so."""
    measured = [result for name in NAMES if (result := load(name)) is not None]
    if not measured or not RESULTS.exists():
        sys.stderr.write("nothing to compare: measure first (make bench), and keep bench/results.json\n")
        return 2
    found = slower(json.loads(RESULTS.read_text(encoding="utf-8")), measured)
    for line in found:
        print(f"slower  {line}")
    if not found:
        print(f"no ratio of {', '.join(result['name'] for result in measured)} is slower than recorded")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
