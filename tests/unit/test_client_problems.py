"""Answers of constitution-service, of something in between, and of somebody hostile, as errors of the domain."""

import json

import pytest

from constitution import errors
from constitution_client.problems import error_of
from constitution_client.settings import UsageError


def _problem(code: str, status: int, **more: object) -> bytes:
    body = {"type": f"urn:somaagenthub:problem:{code}", "title": "t", "status": status, "detail": "d", "code": code}
    return json.dumps({**body, **more}).encode()


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (400, "invalid-request", errors.InvalidRequestError),
        (422, "invalid-document", errors.InvalidDocumentError),
        (422, "untrusted", errors.UntrustedError),
        (403, "not-approved", errors.NotApprovedError),
        (422, "evidence-refused", errors.EvidenceError),
        (403, "forbidden", errors.ForbiddenError),
        (404, "not-found", errors.NotFoundError),
        (404, "no-constitution", errors.NotFoundError),
        (409, "lease-held", errors.LeaseHeldError),
        (409, "lease-lost", errors.LeaseLostError),
        (409, "stale-generation", errors.StaleGenerationError),
        (409, "a-conflict-of-next-year", errors.ConflictError),
        (422, "a-refusal-of-next-year", errors.ContentError),
        (503, "unavailable", errors.UnavailableError),
        (503, "not-yet", errors.NotYetError),
        (500, "defect", errors.UnavailableError),
        (429, "too-many-requests", errors.UnavailableError),
    ],
)
def test_the_code_decides(status: int, code: str, expected: type[errors.ConstitutionError]) -> None:
    error, said = error_of(status, _problem(code, status), what="GET /x")
    assert type(error) is expected
    assert said == code


def test_a_subclass_made_by_the_client_does_not_replace_the_domains_error() -> None:
    assert UsageError.code == errors.InvalidRequestError.code
    error, _ = error_of(400, _problem("invalid-request", 400), what="GET /x")
    assert type(error) is errors.InvalidRequestError


def test_a_permanent_code_with_a_transient_status_is_transient() -> None:
    error, _ = error_of(503, _problem("forbidden", 503), what="GET /x")
    assert type(error) is errors.UnavailableError


def test_issues_hint_and_what_is_current_survive() -> None:
    issue = {"code": "version-order", "path": "/version", "message": "is not higher"}
    body = _problem("stale-generation", 409, issues=[issue], hint="constitution current", current={"generation": 7})
    error, _ = error_of(409, body, what="POST /x")
    assert error.issues == (errors.Issue(code="version-order", path="/version", message="is not higher"),)
    assert error.hint == "constitution current"
    assert error.current == {"generation": 7}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>502</html>",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"code": 7}',
        b"null",
        _problem("forbidden", 404, surprise="unknown field"),
    ],
    ids=["empty", "html", "bad utf-8", "deep", "other shape", "null", "unknown field"],
)
def test_an_answer_that_is_no_problem_is_not_the_services_word(body: bytes) -> None:
    error, said = error_of(404, body, what="GET /v1/constitution")
    assert type(error) is errors.UnavailableError
    assert said == ""
    assert "GET /v1/constitution was answered with HTTP 404" in error.message
    assert "CONSTITUTION_SERVICE_URL" in error.hint
    assert len(error.message) < 400
