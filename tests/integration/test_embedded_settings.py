"""What `make up` hands on of its own environment."""

from pathlib import Path

from deploy.embedded.stack import Stack


def test_namespace_and_log_level_reach_the_settings_of_our_processes(tmp_path: Path) -> None:
    given = {"NAMESPACE": "shared", "LOG_LEVEL": "WARNING", "PORT": "1", "KAFKA_USERNAME": "nobody"}
    with Stack(tmp_path / "stack", ["valkey"], environment=given) as stack:
        settings = stack.settings()
    assert (settings["NAMESPACE"], settings["LOG_LEVEL"]) == ("shared", "WARNING")
    assert not {"PORT", "KAFKA_USERNAME"} & set(settings)
