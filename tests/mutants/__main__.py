"""``make mutants``: take one defence at a time out of a copy of the checkout; its tests must fail there.

``python -m tests.mutants [ATTACK…]``. With ``SERVERS=1`` also where the tests start servers. A test that still passes
without the defence does not test it. Exit code: how many were not noticed. The whole attack through Temporal has a
command of its own: ``python -m tests.attack.defences``.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.mutants.documents import DOCUMENTS
from tests.mutants.mutant import Mutant
from tests.mutants.people import PEOPLE
from tests.mutants.service import SERVICE
from tests.world.without import copied, edit, environment_of, mend

MUTANTS: Final = (*DOCUMENTS, *PEOPLE, *SERVICE)
PYTEST: Final = ("-m", "pytest", "-q", "-x", "-n", "0", "--no-header", "-m", "")
TESTS_FAILED: Final = 1  # pytest's exit code; 2 to 5 say that it could not run them


def noticed(copy: Path, mutant: Mutant) -> tuple[bool, str]:
    """Return whether a test fails without the defence, and pytest's word.

    Raises:
        ValueError: the defence is not where it was.
    """
    edit(copy, mutant.edits)
    ran = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, *PYTEST, *mutant.tests],
        check=False,
        cwd=copy,
        env=environment_of(copy),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    mend(copy, mutant.edits)
    failed = re.findall(r"^(?:FAILED|ERROR) (.*)$", ran.stdout, re.MULTILINE)
    word = failed[0] if failed else (ran.stdout.strip().splitlines() or ["nothing"])[-1]
    return ran.returncode == TESTS_FAILED, word[:160]


def main() -> int:
    """Say each mutant's fate; return how many were not noticed."""
    unnoticed = tried = 0
    copy = copied("mutants", ())  # one for all: Python compiles it once
    for mutant in MUTANTS:
        wanted = sys.argv[1:]
        if (wanted and mutant.attack not in wanted) or (mutant.servers and not os.environ.get("SERVERS")):
            continue
        caught, word = noticed(copy, mutant)
        tried += 1
        unnoticed += not caught
        sys.stdout.write(f"{'noticed' if caught else 'NOT NOTICED'}: {mutant.attack}\n  {word}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{tried} defences taken away, {unnoticed} not noticed\n")
    return unnoticed


if __name__ == "__main__":
    sys.exit(main())
