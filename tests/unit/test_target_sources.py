"""Targets that a list names: bounded, distinct, and never fewer than environment.toml demands."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from adapters.target_sources import fleet_of
from constitution.environment import Environment
from constitution.errors import InvalidRequestError, UnavailableError
from constitution.target_sources import MAX_LIST

HEAD = 'schema_version = 1\nenvironment = "development"\ngate = "gate"\n'
SOURCE = (
    '[[target_sources]]\nid = "fleet"\nsource = "file"\nat = "fleet.json"\nkind = "policy_engine"\nmin_targets = 2\n'
)
OWN = '[[targets]]\nid = "engine-0"\nkind = "policy_engine"\nurl = "http://127.0.0.1:1"\n'


def environment(text: str = SOURCE) -> Environment:
    return Environment.parse(HEAD + OWN + text)


def group(*addresses: str, **labels: str) -> dict[str, Any]:
    return {"targets": list(addresses), "labels": labels}


async def test_a_file_names_targets_by_label_or_by_host(tmp_path: Path) -> None:
    groups = [group("10.0.0.1:8080", target="engine-1"), group("10.0.0.2:8080", "engine-3.example:80", job="x")]
    (tmp_path / "fleet.json").write_text(json.dumps(groups))
    fleet = await fleet_of(environment(), tmp_path)
    assert [target.id for target in fleet.all] == ["engine-0", "engine-1", "10.0.0.2", "engine-3.example"]
    assert fleet.discovered["fleet"][0].url == "http://10.0.0.1:8080"
    assert {target.ring for target in fleet.all} == {"default"}
    assert (await fleet_of(environment(), tmp_path, ("canary",))).all == ()


async def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text(json.dumps([group("a:1", "b:1")]))
    assert len((await fleet_of(environment(), tmp_path)).all) == 3
    (tmp_path / "fleet.json").write_text(json.dumps([group("a:1", "b:1", "c:1")]))
    assert len((await fleet_of(environment(), tmp_path)).all) == 4


@pytest.mark.parametrize(
    ("listed", "why"),
    [
        ("[]", "names 0 targets, fewer than min_targets = 2"),
        (json.dumps([group("a:1")]), "names 1 targets, fewer than"),
        (json.dumps([group("a:1", "a:2")]), "named twice: a"),
        (json.dumps([group("a:1"), group("b:1", target="engine-0")]), "named twice: engine-0"),
        (json.dumps([group("a:1", "b:1", target="one")]), "is of 2 addresses"),
        (json.dumps([group("a:1", "b")]), "is no host:port"),
        (json.dumps([group("a:1", "b:0")]), "is no host:port"),
        (json.dumps([group("a:1", "evil@b:1")]), "is no host:port"),
        (json.dumps([group("a:1", "b/c:1")]), "is no host:port"),
        (json.dumps([group("a:1", "_b:1")]), "cannot be read"),
        (json.dumps({"targets": ["a:1", "b:1"]}), "no list of groups"),
        ("[{", "cannot be read"),
        (None, "cannot be read"),
        (" " * (MAX_LIST + 1), "cannot be read"),
    ],
)
async def test_a_list_that_is_short_or_wrong_is_no_fleet(tmp_path: Path, listed: str | None, why: str) -> None:
    if listed is not None:
        (tmp_path / "fleet.json").write_text(listed)
    with pytest.raises(UnavailableError, match=why):
        await fleet_of(environment(), tmp_path)


async def test_a_name_stands_for_every_address_that_it_has(tmp_path: Path) -> None:
    text = (
        SOURCE.replace("file", "dns")
        .replace("fleet.json", "localhost:8080")
        .replace("min_targets = 2", "min_targets = 1")
    )
    fleet = await fleet_of(environment(text), tmp_path)
    assert [(target.id, target.url) for target in fleet.discovered["fleet"]] == [("127.0.0.1", "http://127.0.0.1:8080")]
    with pytest.raises(UnavailableError, match="has no address"):
        await fleet_of(environment(text.replace("localhost", "nobody.invalid")), tmp_path)


async def test_a_list_comes_over_http_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "list").write_text(json.dumps([group("a:1", "b:1")]))
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        at = f"http://127.0.0.1:{server.server_address[1]}/list"
        text = SOURCE.replace('"file"', '"http_sd"').replace("fleet.json", at)
        try:
            fleet = await fleet_of(environment(text), tmp_path)
            assert [target.id for target in fleet.all] == ["engine-0", "a", "b"]
            with pytest.raises(UnavailableError, match="HTTP 404"):
                await fleet_of(environment(text.replace("/list", "/none")), tmp_path)
        finally:
            server.shutdown()
            thread.join()
    with pytest.raises(UnavailableError, match="did not answer"):
        await fleet_of(environment(text), tmp_path)


@pytest.mark.parametrize(
    "wrong",
    [
        SOURCE.replace("min_targets = 2", "min_targets = 0"),
        SOURCE.replace("min_targets = 2\n", ""),
        SOURCE.replace('"file"', '"http_sd"'),
        SOURCE.replace('"file"', '"dns"'),
        SOURCE.replace('"file"', '"consul"'),
        SOURCE + SOURCE,
    ],
)
def test_a_source_says_how_few_are_an_error(wrong: str) -> None:
    with pytest.raises(InvalidRequestError):
        environment(wrong)


def test_a_source_has_a_ring() -> None:
    assert environment(SOURCE + 'ring = "canary"\n').rings() == ("canary", "default")
