"""Which Prometheus is taken from the distribution, and what happens where its packages cannot be had."""

import os
from pathlib import Path

import pytest

from deploy.embedded.prometheus import recent_enough, unpack
from deploy.embedded.server import ServerError


@pytest.mark.parametrize(
    ("version", "taken"),
    [
        ("2.42.0+ds-5+deb12u1", True),  # Debian 12
        ("2.53.3+ds1-2", True),  # Debian 13
        ("1:3.5.0-1", True),
        ("2.31.2+ds1-1ubuntu1", False),  # Ubuntu 22.04
        ("2.9.0", False),
        ("unknown", False),
    ],
)
def test_takes_a_package_that_is_as_new_as_what_the_tests_ran_with(version: str, taken: bool) -> None:
    assert recent_enough(version) is taken


def test_says_where_to_look_when_no_package_source_answers(tmp_path: Path) -> None:
    nobody = "http://127.0.0.1:9"  # discard: nothing listens there
    environment = {**os.environ, "http_proxy": nobody, "https_proxy": nobody}
    log = tmp_path / "package.log"
    with pytest.raises(ServerError, match=f"see {log}"):
        unpack(tmp_path, log, lambda _: None, environment)
    assert log.read_text()
