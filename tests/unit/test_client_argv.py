"""Which command line means what. Every verb of the interface is listed once, with what it is parsed to."""

from pathlib import Path
from typing import Any

import pytest
import typer

from constitution_client.commands import app
from constitution_client.main import run

CHECKSUM = "sha256:" + "0" * 64
VERBS = [
    "init",
    "draft",
    "push",
    "validate",
    "change-request",
    "load",
    "confirm",
    "current",
    "releases",
    "show",
    "diff",
    "doctor",
    "audit",
    "receipt",
    "archive",
    "drill",
    "verify-signature",
    "sign",
    "trust",
    "update",
    "approve",
    "deny",
    "reissue",
    "abort",
    "status",
    "watch",
    "rollback",
    "retry",
    "skip",
    "promote",
    "withdraw",
    "hold",
    "resume",
    "order",
]

PARSED = [
    pytest.param(
        ["push", "--path", "constitution_v1.4.json", "--signature", "path.sig"],
        {"path": Path("constitution_v1.4.json"), "signature": [Path("path.sig")]},
        id="the runbook's own command",
    ),
    pytest.param(
        ["push", "--document", "c.json", "--signature", "a.sig", "--signature", "b.json"],
        {"path": Path("c.json"), "signature": [Path("a.sig"), Path("b.json")]},
        id="push with two signatures",
    ),
    pytest.param(
        ["verify-signature", "--document", "F", "--signature", "S", "--trust", "T"],
        {"document": Path("F"), "signature": [Path("S")], "trust": Path("T")},
        id="verify-signature",
    ),
    pytest.param(
        ["validate", "--checksum", CHECKSUM], {"checksum": CHECKSUM, "path": None, "signature": ()}, id="validate"
    ),
    pytest.param(
        ["update", "--checksum", CHECKSUM, "--change-request", "CR-142", "--dry-run", "--wait"],
        {"checksum": CHECKSUM, "change_request": "CR-142", "dry_run": True, "wait": True, "strategy": "default"},
        id="update",
    ),
    pytest.param(
        ["update", "--document", "c.json", "--signature", "c.sig", "--change-request", "CR-1"],
        {"document": "c.json", "signature": ["c.sig"], "checksum": None},
        id="update from the inbox",
    ),
    pytest.param(
        ["approve", "CR-142", "--key", "alva.tsk", "--print"],
        {"run": "CR-142", "key": Path("alva.tsk"), "print_only": True, "yes": False, "valid_days": 7},
        id="approve",
    ),
    pytest.param(
        ["approve", "CR-142", "--print-statement", "file"],
        {"key": None, "print_statement": Path("file"), "signature": None},
        id="approve with a token, first call",
    ),
    pytest.param(
        ["deny", "CR-142", "--signature", "file.sig", "--statement", "other"],
        {"key": None, "signature": Path("file.sig"), "statement": Path("other"), "reason": None},
        id="deny with a token, second call",
    ),
    pytest.param(
        ["init", "--directory", "d", "--maintainers", "a,b", "--sigstore", "b=b@x.org,https://x.org"],
        {"maintainer": ["a,b"], "sigstore": ["b=b@x.org,https://x.org"], "sigstore_root": None},
        id="init with several maintainers",
    ),
    pytest.param(
        ["deny", "CR-142", "--key", "alva.tsk", "--reason", "no"],
        {"run": "CR-142", "reason": "no"},
        id="deny",
    ),
    pytest.param(["abort", "a/b/c", "--reason", "no"], {"run": "a/b/c", "reason": "no"}, id="abort"),
    pytest.param(["rollback", "--reason", "bad", "--to", "3"], {"reason": "bad", "to": 3}, id="rollback"),
    pytest.param(["hold", "a/b/c", "--reason", "no", "--key", "k"], {"run": "a/b/c", "key": Path("k")}, id="hold"),
    pytest.param(
        ["order", "resume", "CR-1", "--key", "k", "--print"],
        {"verb": "resume", "run": "CR-1", "print_only": True, "reason": None},
        id="order",
    ),
    pytest.param(["status"], {"run": None}, id="status of everything"),
    pytest.param(["show", "7", "--json"], {"what": "7", "json": True}, id="show"),
    pytest.param(["current", "--ring", "canary", "--text"], {"ring": "canary", "json": False}, id="current"),
    pytest.param(["diff", "new.json", "--old", "old.json"], {"new": "new.json", "old": "old.json"}, id="diff"),
    pytest.param(["sign", "c.json", "--key", "k"], {"document": Path("c.json"), "out": None}, id="sign"),
    pytest.param(["init", "--directory", "d"], {"directory": Path("d"), "environment": "development"}, id="init"),
]

USAGE = [
    pytest.param([], id="no verb"),
    pytest.param(["publish"], id="unknown verb"),
    pytest.param(["push", "--path", "c.json"], id="push without signature"),
    pytest.param(["push", "c.json", "--signature", "s"], id="push with a stray argument"),
    pytest.param(["validate"], id="validate nothing"),
    pytest.param(["validate", "--checksum", CHECKSUM, "--path", "c"], id="validate two things"),
    pytest.param(["update", "--checksum", CHECKSUM], id="update without change request"),
    pytest.param(["update", "--change-request", "CR-1"], id="update without document"),
    pytest.param(["update", "--change-request", "CR-1", "--checksum", "sha256:0"], id="update with a short checksum"),
    pytest.param(["update", "--change-request", "../x", "--checksum", CHECKSUM], id="change request with a path"),
    pytest.param(
        ["update", "--change-request", "CR-1", "--document", "../../etc/passwd", "--signature", "s"], id="path for name"
    ),
    pytest.param(
        ["update", "--change-request", "CR-1", "--checksum", CHECKSUM, "--not-before", "tomorrow"], id="no moment"
    ),
    pytest.param(
        ["update", "--change-request", "CR-1", "--checksum", CHECKSUM, "--not-before", "2026-12-01T10:00:00"],
        id="moment without zone",
    ),
    pytest.param(["rollback", "--reason", "x", "--to", "0"], id="generation zero"),
    pytest.param(["rollback", "--reason", ""], id="empty reason"),
    pytest.param(["rollback", "--reason", "x", "--print"], id="nothing signed to print"),
    pytest.param(["order", "approve", "CR-1", "--key", "k"], id="no order to a run"),
    pytest.param(["approve", "CR-1", "--key", "k", "--valid-days", "90"], id="signature for a quarter"),
    pytest.param(["approve", "CR-1", "--key", "k", "--evidence", CHECKSUM], id="evidence without --print"),
    pytest.param(["approve", "CR-1"], id="approve signed by nobody"),
    pytest.param(["approve", "CR-1", "--print-statement", "f", "--signature", "f.sig"], id="to sign and signed"),
    pytest.param(["approve", "CR-1", "--key", "k", "--statement", "f"], id="a statement without its signature"),
    pytest.param(["deny", "CR-1", "--key", "k"], id="deny without a reason"),
    pytest.param(["reissue", "CR-1", "--key", "k"], id="reissue without a reason"),
    pytest.param(["reissue", "CR-1", "--reason", "x"], id="reissue signed by nobody"),
    pytest.param(["withdraw", "--reason", "x", "--print"], id="no signed withdraw to print"),
    pytest.param(["load", "--reason", "x"], id="load nothing"),
    pytest.param(["load", "--reason", "x", "--kind", "bogus", "--checksum", CHECKSUM], id="load of unknown kind"),
    pytest.param(["watch", "CR-1", "--timeout", "-1"], id="negative timeout"),
]


def _parse(arguments: list[str]) -> dict[str, Any]:
    command = typer.main.get_command(app)
    verb = command.commands[arguments[0]]  # type: ignore[attr-defined]
    context = verb.make_context(arguments[0], list(arguments[1:]))
    return dict(context.params)


class TestCommandLine:
    def test_has_every_verb_of_the_interface_and_no_other(self) -> None:
        command = typer.main.get_command(app)
        assert sorted(VERBS) == sorted(command.commands)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(("arguments", "expected"), PARSED)
    def test_is_parsed_as_written(self, arguments: list[str], expected: dict[str, Any]) -> None:
        parsed = _parse(arguments)
        assert expected == {name: parsed[name] for name in expected}

    @pytest.mark.parametrize("arguments", USAGE)
    def test_wrong_usage_exits_2_and_prints_no_result(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        code = run(arguments)
        captured = capsys.readouterr()
        assert code == 2
        assert "Traceback" not in captured.err
        assert captured.out == "" or arguments == []

    @pytest.mark.parametrize("verb", VERBS)
    def test_help_of_every_verb_exits_0(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        code = run([verb, "--help"])
        assert code == 0
        assert "Usage: constitution" in capsys.readouterr().out

    def test_help_lists_the_exit_codes(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run(["--help"]) == 0
        out = " ".join(capsys.readouterr().out.split())
        assert "3 a server does not answer" in out
        assert "5 the run was rolled back" in out

    @pytest.mark.parametrize("arguments", [["watch", "CR-1"], ["watch", "follow", "CR-1"], ["watch", "--json", "CR-1"]])
    def test_watch_without_a_view_follows(
        self, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("ENVIRONMENT_FILE", "TRUST_FILE", "CONSTITUTION_ENV_FILE"):
            monkeypatch.delenv(name, raising=False)
        code = run(arguments)
        # A change request needs the environment's name; that it is missed shows that CR-1 reached `follow`.
        assert code == 2
        assert "no trust policy is named" in capsys.readouterr().err
