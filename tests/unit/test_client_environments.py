"""The environment files that ship are valid."""

from pathlib import Path

import pytest

from constitution.environment import Environment

ENVIRONMENTS = sorted((Path(__file__).resolve().parents[2] / "deploy" / "environments").glob("*.toml"))


def test_at_least_one_ships() -> None:
    assert ENVIRONMENTS


@pytest.mark.parametrize("path", ENVIRONMENTS, ids=lambda path: path.stem)
def test_is_valid_and_named_after_its_environment(path: Path) -> None:
    environment = Environment.parse(path.read_text("utf-8"))
    assert environment.environment == path.stem
    assert environment.targets
    assert (path.parent / environment.gate / "policy").is_dir()
    assert (path.parent / environment.gate / "chaos").is_dir()
