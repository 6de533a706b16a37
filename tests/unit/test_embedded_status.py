"""What `make status` advises: what has ended is started first; what only waits for it is not restarted instead."""

from deploy.embedded.__main__ import advice
from deploy.embedded.stack import ServerStatus


def entry(name: str, state: str, pid: int | None) -> ServerStatus:
    return ServerStatus(name=name, state=state, detail="d", pid=pid, uptime_s=None, rss_mb=None, urls={}, log=None)


def test_a_service_whose_database_has_ended_is_not_restarted_in_its_place() -> None:
    lines = advice([entry("constitution-service", "not answering", 7), entry("postgres", "failed", None)])
    assert lines == [
        "postgres is failed: d; make restart NAME=postgres",
        "constitution-service is not answering: d; first start postgres",
    ]


def test_a_service_that_is_ill_by_itself_is_restarted() -> None:
    assert advice([entry("constitution-service", "not answering", 7)]) == [
        "constitution-service is not answering: d; make restart NAME=constitution-service"
    ]
