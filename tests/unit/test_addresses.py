"""What is said of an address, and what of it stays with whoever was given it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.artifact_store import ArtifactStore
from constitution.addresses import host_of, link_of


@pytest.mark.parametrize(
    ("url", "host", "link"),
    [
        (
            "http://anna:pa55@siem.example.org:8088/in?t=k",
            "siem.example.org:8088",
            "http://siem.example.org:8088/in?t=k",
        ),
        ("https://tok3n@h/", "h", "https://h/"),
        ("http://a:b@[::1]:80/x", "[::1]:80", "http://[::1]:80/x"),
        ("http://a:p@ss@h/", "h", "http://h/"),
        ("http://h:notaport/", "an address that cannot be read", "http://h:notaport/"),
        ("nothing", "an address without a host", "nothing"),
        ("", "an address without a host", ""),
    ],
)
def test_an_address_without_its_secrets(url: str, host: str, link: str) -> None:
    assert host_of(url) == host
    assert link_of(url) == link


@given(user=st.text("ab:@%", max_size=9), rest=st.text("xy/?#=", max_size=9))
def test_no_user_is_ever_said(user: str, rest: str) -> None:
    url = f"http://{user}SECRET@host.example:1/{rest}"
    assert host_of(url) == "host.example:1"
    assert "SECRET" not in link_of(url)


def test_the_address_of_a_stored_object_names_no_user(tmp_path: Path) -> None:
    assert ArtifactStore(f"file://{tmp_path}").uri("x") == f"file://{tmp_path}/x"
    assert ArtifactStore("s3://anna:pa55@bucket/prefix").uri("x") == "s3://bucket/prefix/x"
