"""A copy of the checkout that lacks one defence: what shows that a test which needs it can fail."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CHECKOUT: Final = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Edit:
    """One place of the product that is changed.

    Args:
        file: where it is, relative to the checkout.
        text: what stands there, once.
        without: what stands there instead.
    """

    file: str
    text: str
    without: str


def copied(name: str, edits: Sequence[Edit]) -> Path:
    """Return a new copy of the checkout, with these edits; the packages and caches are the checkout's own.

    Raises:
        ValueError: a text is not in its file, or more than once.
    """
    copy = CHECKOUT / "var" / "without" / name.replace(" ", "-")
    shutil.rmtree(copy, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607 - wherever git is
        check=True,
        capture_output=True,
        text=True,
        cwd=CHECKOUT,
    )
    for path in listed.stdout.splitlines():
        source = CHECKOUT / path
        if source.is_file():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy / path)
    (copy / ".venv").symlink_to(CHECKOUT / ".venv")
    edit(copy, edits)
    return copy


def edit(copy: Path, edits: Sequence[Edit]) -> None:
    """Take these defences out of a copy.

    Raises:
        ValueError: a text is not in its file, or more than once.
    """
    for one in edits:
        file = copy / one.file
        text = file.read_text()
        if text.count(one.text) != 1:
            raise ValueError(f"{one.file} does not hold {one.text!r} once")
        file.write_text(text.replace(one.text, one.without))


def mend(copy: Path, edits: Sequence[Edit]) -> None:
    """Put them back, as the checkout has them."""
    for one in edits:
        shutil.copyfile(CHECKOUT / one.file, copy / one.file)


def environment_of(copy: Path) -> dict[str, str]:
    """Return the variables with which a program of the copy runs the copy's own code."""
    return os.environ | {"PYTHONPATH": str(copy)}
