"""Which servers a person brings: those that the settings of a shell name, unless they are the stack's own."""

import pytest

from deploy.embedded.external import REPLACED_BY, external_settings

OURS = {
    "DATABASE_URL": "postgresql://service@127.0.0.1:5432/constitution",
    "DATABASE_READER_URL": "postgresql://reader@127.0.0.1:5432/constitution",
    "REDIS_URL": "redis://:password@127.0.0.1:6379/0",
    "TEMPORAL_ADDRESS": "127.0.0.1:7233",
}


def test_a_shell_that_has_read_stack_env_brings_no_server() -> None:
    assert external_settings(OURS, OURS) == {}
    assert external_settings(OURS, {}).keys() == {"postgres", "valkey", "temporal"}


@pytest.mark.parametrize("server", ["postgres", "valkey", "temporal"])
def test_another_address_than_the_stacks_own_brings_that_server_alone(server: str) -> None:
    first = REPLACED_BY[server][0]
    given = OURS | {first: OURS[first].replace("127.0.0.1", "db.example")}
    expected = {name: given[name] for name in REPLACED_BY[server] if name in given}
    assert external_settings(given, OURS) == {server: expected}


def test_what_does_not_decide_and_what_is_blank_brings_none() -> None:
    given = {"DATABASE_READER_URL": "postgresql://reader@db.example/constitution", "REDIS_URL": ""}
    assert external_settings(given, OURS) == {}
