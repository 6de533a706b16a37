"""The command line as a real process, where no server is needed: init, sign, verify-signature. Exit codes included."""

import json
import os
import signal
import stat
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

import pytest

from constitution.checksum import checksum_of
from constitution.policy.document import parse
from constitution.release import Previous

CHECKOUT = Path(__file__).resolve().parents[2]
SETTINGS = ("CONSTITUTION_", "ENVIRONMENT_FILE", "TRUST_FILE", "CLIENT_KEY_FILE", "TEMPORAL_", "NAMESPACE")


class Done(NamedTuple):
    code: int
    out: str
    err: str


def environment(**more: str) -> dict[str, str]:
    """Return this process's environment without settings of the command line, and with ``more``."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    return {**kept, "PYTHONPATH": str(CHECKOUT), **more}


def command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "constitution_client", *map(str, arguments)]


def constitution(*arguments: str | Path, cwd: Path | None = None, **more: str) -> Done:
    done = subprocess.run(  # noqa: S603 - our own program
        command(*arguments), capture_output=True, text=True, check=False, cwd=cwd, env=environment(**more), timeout=60
    )
    assert "Traceback" not in done.stderr, done.stderr
    return Done(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def ceremony(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ceremony")
    done = constitution("init", "--directory", directory)
    assert done.code == 0, done.err
    return directory


@pytest.fixture
def document(tmp_path: Path) -> Path:
    path = tmp_path / "constitution_v1.4.json"
    path.write_bytes(b'{"any": "bytes", "at": "all"}\n')
    return path


@pytest.fixture
def signature(ceremony: Path, document: Path) -> Path:
    done = constitution("sign", document, "--key", ceremony / "keys" / "mara.tsk")
    assert done.code == 0, done.err
    return document.with_name(document.name + ".sig")


class TestInit:
    def test_makes_keys_that_only_their_owner_can_read(self, ceremony: Path) -> None:
        keys = sorted((ceremony / "keys").iterdir())
        assert [key.name for key in keys] == [
            "alva.tsk",
            "assessor-client.jwk",
            "assessor.jwk",
            "bruno.tsk",
            "chen.tsk",
            "constitution-service.jwk",
            "gate.jwk",
            "mara.tsk",
            "olga.tsk",
            "operator.jwk",
            "target.jwk",
            "worker.jwk",
        ]
        assert {stat.S_IMODE(key.stat().st_mode) for key in keys} == {0o600}
        assert stat.S_IMODE((ceremony / "keys").stat().st_mode) == 0o700

    def test_prints_the_fingerprints_that_the_trust_policy_pins(self, tmp_path: Path) -> None:
        done = constitution("init", "--directory", tmp_path / "a", "--environment", "staging", "--generate")
        printed = json.loads(done.out)
        policy = (tmp_path / "a" / "trust" / "trust.toml").read_text()
        assert set(printed["fingerprints"]) == {"mara", "alva", "bruno", "chen", "olga"}
        assert all(fingerprint in policy for fingerprint in printed["fingerprints"].values())
        assert all(key in policy for key in printed["public_keys"].values())
        assert 'environment = "staging"' in policy

    def test_prints_no_secret(self, tmp_path: Path) -> None:
        done = constitution("init", "--directory", tmp_path / "a", "--text")
        secret = json.loads((tmp_path / "a" / "keys" / "worker.jwk").read_text())["d"]
        assert secret not in done.out + done.err
        assert "PRIVATE KEY" not in done.out + done.err

    def test_refuses_to_overwrite_and_changes_nothing(self, ceremony: Path) -> None:
        before = {path: path.read_bytes() for path in ceremony.rglob("*") if path.is_file()}
        done = constitution("init", "--directory", ceremony)
        assert (done.code, done.out) == (1, "")
        assert "keys are never overwritten" in done.err
        assert "next: " in done.err
        assert before == {path: path.read_bytes() for path in ceremony.rglob("*") if path.is_file()}

    @pytest.mark.parametrize("name", ["", "Production", "../x", "a b", 'x"\ny = 1', "x" * 64])
    def test_refuses_what_is_no_environments_name(self, tmp_path: Path, name: str) -> None:
        done = constitution("init", "--directory", tmp_path / "a", "--environment", name, "--generate")
        assert done.code == 1
        assert not (tmp_path / "a").exists()

    def _killed_in_the_middle(self, tmp_path: Path) -> Path:
        """Kill one while its scratch folder is there, which is for some milliseconds: no pause, and more than one."""
        for attempt in range(20):
            directory = tmp_path / str(attempt)
            process = subprocess.Popen(  # noqa: S603 - our own program
                command("init", "--directory", directory), env=environment(), stdout=subprocess.DEVNULL
            )
            while process.poll() is None and not any(directory.glob(".ceremony-*")):
                pass
            process.kill()
            if process.wait(timeout=20) == -signal.SIGKILL:
                return directory
        pytest.fail("each of them had ended before it was killed")

    def test_killed_in_the_middle_leaves_no_half_made_trust_and_can_be_repeated(self, tmp_path: Path) -> None:
        directory = self._killed_in_the_middle(tmp_path)
        assert not (directory / "trust").exists()
        assert not (directory / "keys").exists()
        assert constitution("init", "--directory", directory).code == 0


class TestVerifySignature:
    def _verify(self, ceremony: Path, document: Path, *signatures: Path) -> tuple[int, dict[str, object]]:
        options: list[str | Path] = []
        for path in signatures:
            options += ["--signature", path]
        trust = ceremony / "trust" / "trust.toml"
        done = constitution("verify-signature", "--document", document, *options, "--trust", trust)
        return done.code, json.loads(done.out)

    def test_names_the_signer_and_exits_0(self, ceremony: Path, document: Path, signature: Path) -> None:
        code, answer = self._verify(ceremony, document, signature)
        assert code == 0
        assert answer["trusted"] is True
        assert answer["signers"] == ["mara"]

    def test_finds_the_policy_through_the_environment_file(
        self, ceremony: Path, document: Path, signature: Path
    ) -> None:
        settings = ceremony / "environment.toml"
        settings.write_text('environment = "development"\ngate = "gate"\n')
        done = constitution(
            "verify-signature", "--document", document, "--signature", signature, ENVIRONMENT_FILE=str(settings)
        )
        assert done.code == 0, done.err

    @pytest.mark.parametrize("position", [0, 10, -1])
    def test_any_changed_byte_is_found(self, ceremony: Path, document: Path, signature: Path, position: int) -> None:
        data = bytearray(document.read_bytes())
        data[position] ^= 1
        document.write_bytes(data)
        code, answer = self._verify(ceremony, document, signature)
        assert code == 1
        assert answer["signers"] == []

    def test_a_board_member_is_no_maintainer(self, ceremony: Path, document: Path, tmp_path: Path) -> None:
        done = constitution("sign", document, "--key", ceremony / "keys" / "alva.tsk", "--out", tmp_path / "alva.sig")
        assert done.code == 0
        code, answer = self._verify(ceremony, document, tmp_path / "alva.sig")
        assert code == 1
        assert "alva is no maintainer" in str(answer["findings"])

    def test_a_stranger_is_nobody(self, ceremony: Path, document: Path, tmp_path: Path) -> None:
        assert constitution("init", "--directory", tmp_path / "other").code == 0
        key = tmp_path / "other" / "keys" / "mara.tsk"
        assert constitution("sign", document, "--key", key).code == 0
        code, answer = self._verify(ceremony, document, document.with_name(document.name + ".sig"))
        assert code == 1
        assert answer["signers"] == []

    def test_rubbish_beside_a_good_signature_is_reported_and_does_not_block_it(
        self, ceremony: Path, document: Path, signature: Path, tmp_path: Path
    ) -> None:
        rubbish = tmp_path / "rubbish"
        rubbish.write_bytes(b"\x89not a signature")
        code, answer = self._verify(ceremony, document, rubbish, signature)
        findings = answer["findings"]
        assert code == 0
        assert isinstance(findings, list)
        assert [finding["counted"] for finding in findings] == [False, True]

    @pytest.mark.parametrize(
        "content",
        [b"", b"{", b"[" * 100_000, b"\xff\xff", b"-----BEGIN PGP SIGNATURE-----\n", b"{}" + b" " * 1_000_000, b"\x00"],
        ids=["empty", "half a bundle", "deep", "binary", "half an armor", "padded", "nul"],
    )
    def test_a_hostile_signature_is_refused_with_a_reason(
        self, ceremony: Path, document: Path, tmp_path: Path, content: bytes
    ) -> None:
        (tmp_path / "s").write_bytes(content)
        code, answer = self._verify(ceremony, document, tmp_path / "s")
        findings = answer["findings"]
        assert code == 1
        assert isinstance(findings, list)
        assert findings[0]["detail"]

    @pytest.mark.parametrize("kind", ["missing", "directory", "fifo", "too large"])
    def test_a_file_that_cannot_be_read_is_named(
        self, ceremony: Path, document: Path, tmp_path: Path, kind: str
    ) -> None:
        path = tmp_path / "s"
        match kind:
            case "directory":
                path.mkdir()
            case "fifo":
                os.mkfifo(path)
            case "too large":
                path.write_bytes(b"x" * (1024 * 1024 + 1))
        trust = ceremony / "trust" / "trust.toml"
        done = constitution("verify-signature", "--document", document, "--signature", path, "--trust", trust)
        assert (done.code, done.out) == (1, "")
        assert str(path) in done.err
        assert "next: " in done.err

    def test_without_a_trust_policy_it_says_how_to_name_one(self, document: Path, signature: Path) -> None:
        done = constitution("verify-signature", "--document", document, "--signature", signature)
        assert done.code == 2
        assert "--trust" in done.err

    def test_a_trust_policy_that_is_wrong_lists_every_problem(
        self, ceremony: Path, document: Path, signature: Path, tmp_path: Path
    ) -> None:
        text = (ceremony / "trust" / "trust.toml").read_text()
        bad = tmp_path / "trust.toml"
        bad.write_text(text.replace("approval = 2", "approval = 9").replace("rollback = 2", "rollback = 8"))
        done = constitution("verify-signature", "--document", document, "--signature", signature, "--trust", bad)
        assert done.code == 1
        assert done.err.count("  - ") >= 2


class TestSign:
    def test_overwrites_nothing(self, ceremony: Path, document: Path, signature: Path) -> None:
        before = signature.read_bytes()
        done = constitution("sign", document, "--key", ceremony / "keys" / "mara.tsk")
        assert done.code == 1
        assert "not overwritten" in done.err
        assert signature.read_bytes() == before

    def test_refuses_a_key_that_others_can_read(self, ceremony: Path, document: Path, tmp_path: Path) -> None:
        key = tmp_path / "key.tsk"
        key.write_bytes((ceremony / "keys" / "mara.tsk").read_bytes())
        key.chmod(0o644)
        done = constitution("sign", document, "--key", key)
        assert done.code == 1
        assert "can be read by others" in done.err
        assert not document.with_name(document.name + ".sig").exists()

    @pytest.mark.parametrize("content", [b"", b"hello", b"-----BEGIN PGP PRIVATE KEY BLOCK-----\n\n"])
    def test_refuses_what_is_no_key(self, document: Path, tmp_path: Path, content: bytes) -> None:
        key = tmp_path / "key.tsk"
        key.write_bytes(content)
        key.chmod(0o600)
        assert constitution("sign", document, "--key", key).code == 1

    def test_refuses_a_certificate_in_place_of_a_key(self, ceremony: Path, document: Path, tmp_path: Path) -> None:
        key = tmp_path / "key.tsk"
        key.write_bytes((ceremony / "trust" / "certificates" / "mara.asc").read_bytes())
        key.chmod(0o600)
        assert constitution("sign", document, "--key", key).code == 1


def test_a_reader_that_goes_away_costs_neither_exit_code_nor_a_trace() -> None:
    process = subprocess.Popen(  # noqa: S603 - our own program
        command("--help"), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    error = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=20)
    assert "Traceback" not in error
    assert "Exception ignored" not in error


def _trust(ceremony: Path) -> Path:
    return ceremony / "trust" / "trust.toml"


class TestStreams:
    """Standard streams as machines and shells have them; what was asked is answered, or the exit code says not."""

    @pytest.mark.parametrize(
        "locale",
        [
            pytest.param({"PYTHONIOENCODING": "ascii"}, marks=pytest.mark.slow),
            {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
            pytest.param({"PYTHONIOENCODING": "latin-1"}, marks=pytest.mark.slow),
        ],
        ids=["ascii", "posix", "latin-1"],
    )
    def test_an_encoding_that_lacks_characters_costs_only_these(
        self, ceremony: Path, document: Path, signature: Path, locale: dict[str, str]
    ) -> None:
        asked = ("verify-signature", "--document", document, "--signature", signature, "--trust", _trust(ceremony))
        text = constitution(*asked, "--text", **locale)  # type: ignore[arg-type]
        assert text.code == 0, text.err
        assert f"? {signature} (openpgp)" in text.out
        drafted = constitution(
            *("draft", "--title", "Zoë's rules ✓", "--environment", "d", "--version", "1.0.0", "--previous", "none"),
            *("--out", document.with_name("drafted.json")),
            **locale,  # type: ignore[arg-type]
        )
        assert drafted.code == 0, drafted.err
        shown = parse(document.with_name("drafted.json").read_bytes())
        assert shown.title == "Zoë's rules ✓"
        as_json = constitution("diff", document.with_name("drafted.json"), "--old", "none", "--json", **locale)  # type: ignore[arg-type]
        assert as_json.code == 0, as_json.err
        assert isinstance(json.loads(as_json.out), (dict, list))
        if locale.get("PYTHONIOENCODING") != "latin-1":  # its middle dots are no UTF-8, as which this test reads
            for verb in ((), ("approve",), ("rollback",)):
                assert constitution(*verb, "--help", **locale).code == 0  # type: ignore[arg-type]

    def test_bytes_that_are_no_text_are_refused(self, tmp_path: Path) -> None:
        done = subprocess.run(  # noqa: S603 - our own program
            [*map(os.fsencode, command("draft")), b"--title", b"Zo\xeb", b"--out", os.fsencode(tmp_path / "o.json")],
            capture_output=True,
            check=False,
            env=environment(),
            timeout=60,
        )
        assert (done.returncode, done.stdout) == (2, b"")
        assert b"is not UTF-8" in done.stderr

    @pytest.mark.parametrize("option", ["--help", "--version", "verify-signature"])
    def test_an_answer_that_cannot_be_written_is_no_success(
        self, ceremony: Path, document: Path, signature: Path, option: str
    ) -> None:
        asked: tuple[str | Path, ...] = (option,)
        if option == "verify-signature":
            asked = (option, "--document", document, "--signature", signature, "--trust", _trust(ceremony))
        for redirection, code, said in (
            (">/dev/full", 1, "No space left on device"),
            (">&-", 2, "stdout is closed"),
            ("2>&-", 0, ""),
            ("2>/dev/full", 0, ""),
            ("<&-", 0, ""),
            (">&- 2>&- <&-", 2, ""),
        ):
            done = subprocess.run(  # noqa: S603 - our own program, by a shell for its redirections
                ["/bin/sh", "-c", f'"$@" {redirection}', "sh", *command(*asked)],
                capture_output=True,
                text=True,
                check=False,
                env=environment(),
                timeout=60,
            )
            assert done.returncode == code, (redirection, done.stderr)
            assert said in done.stderr
            assert "Traceback" not in done.stderr

    def test_a_reader_that_goes_away_is_told_apart_from_a_refusal(self, ceremony: Path, document: Path) -> None:
        asked = command(
            "verify-signature", "--document", document, "--signature", document, "--trust", _trust(ceremony)
        )
        for buffering in ("", "1"):
            reader, writer = os.pipe()
            os.close(reader)
            variables = environment(PYTHONUNBUFFERED=buffering)
            done = subprocess.run(  # noqa: S603 - our own program
                asked, stdout=writer, stderr=subprocess.PIPE, text=True, check=False, env=variables, timeout=60
            )
            os.close(writer)
            assert (done.returncode, done.stderr) == (141, "")

    def test_the_version_is_that_of_the_distribution(self) -> None:
        assert json.loads(constitution("--version").out) == {"version": metadata.version("constitution-runbook")}
        assert constitution("--version", PYTHONIOENCODING="ascii").code == 0


class TestDraft:
    @pytest.mark.parametrize("template", ["tool-use", "data-handling", "escalation", "lockdown"])
    def test_makes_a_valid_constitution_of_each_example(self, tmp_path: Path, template: str) -> None:
        out = tmp_path / "c.json"
        done = constitution(
            "draft",
            *("--template", template, "--version", "1.0.0", "--environment", "staging"),
            *("--previous", "none", "--out", out),
        )
        assert done.code == 0, done.err
        drafted = parse(out.read_bytes())
        assert (drafted.version, drafted.environment, drafted.previous) == ("1.0.0", "staging", None)
        assert drafted.rules
        assert json.loads(done.out)["checksum"] == checksum_of(out.read_bytes())

    def test_names_the_exact_bytes_that_it_replaces(self, ceremony: Path, tmp_path: Path) -> None:
        trust = str(ceremony / "trust" / "trust.toml")
        first, second = tmp_path / "1.json", tmp_path / "2.json"
        initial = ("--version", "1.0.0", "--previous", "none", "--out", first)
        assert constitution("draft", *initial, TRUST_FILE=trust).code == 0
        following = ("--version", "1.1.0", "--previous", first, "--out", second)
        assert constitution("draft", *following, "--template", first, "--days", "30", TRUST_FILE=trust).code == 0
        drafted = parse(second.read_bytes())
        assert drafted.previous == Previous(version="1.0.0", checksum=checksum_of(first.read_bytes()))
        assert drafted.environment == "development"
        assert (drafted.expires_at - drafted.issued_at).days == 30

        changes = constitution("diff", second, "--old", first)
        assert changes.code == 0
        assert "version 1.0.0 -> 1.1.0" in json.loads(changes.out)["changes"]
        assert constitution("diff", first, "--old", first, "--text").out == "no difference in meaning\n"
        assert "first constitution" in constitution("diff", first, "--old", "none", "--text").out

    @pytest.mark.parametrize(
        ("options", "code", "said"),
        [
            (("--version", "1.0.0", "--environment", "x"), 2, "--previous none"),
            (("--version", "1.0.0", "--previous", "none"), 2, "no trust policy is named"),
            (("--version", "1", "--environment", "x", "--previous", "none"), 1, "/version"),
            (("--version", "1.0.0", "--environment", "x", "--previous", "missing.json"), 1, "missing.json"),
            (("--version", "1.0.0", "--environment", "x", "--previous", "none", "--template", "nope"), 1, "tool-use"),
            (("--version", "1.0.0", "--environment", "x", "--previous", "none", "--days", "1"), 2, "--days"),
            (
                (
                    "--version",
                    "1.0.0",
                    "--environment",
                    "x",
                    "--previous",
                    "none",
                    "--effective-at",
                    "2026-12-01T10:00",
                ),
                2,
                "time zone",
            ),
            (("--version", "1.0.0", "--environment", "x", "--previous", "current"), 2, "CONSTITUTION_SERVICE_URL"),
        ],
    )
    def test_says_what_is_missing_and_writes_nothing(
        self, tmp_path: Path, options: tuple[str, ...], code: int, said: str
    ) -> None:
        done = constitution("draft", *options, "--out", tmp_path / "c.json", cwd=tmp_path)
        assert (done.code, done.out) == (code, "")
        assert said in " ".join(done.err.split())
        assert not (tmp_path / "c.json").exists()

    def test_shows_every_problem_of_a_document_that_is_none(self, tmp_path: Path) -> None:
        (tmp_path / "bad.json").write_text('{"version": "1.0.0", "surprise": "\\u001b[2J", "rules": 7}')
        done = constitution("diff", tmp_path / "bad.json", "--old", "none")
        assert done.code == 1
        assert done.err.count("  - ") >= 3
        assert "\x1b" not in done.err


class TestSettings:
    def test_a_settings_file_is_read_when_it_is_named_and_the_environment_wins(
        self, ceremony: Path, document: Path, signature: Path, tmp_path: Path
    ) -> None:
        env_file = tmp_path / "stack.env"
        env_file.write_text(f"TRUST_FILE={ceremony / 'trust' / 'trust.toml'}\n")
        verify = ("verify-signature", "--document", document, "--signature", signature)
        assert constitution("--env-file", env_file, *verify).code == 0
        assert constitution(*verify, CONSTITUTION_ENV_FILE=str(env_file)).code == 0
        assert constitution("--env-file", env_file, *verify, TRUST_FILE=str(tmp_path / "none.toml")).code == 1

    def test_every_wrong_setting_is_listed_at_once(self, document: Path, signature: Path) -> None:
        done = constitution(
            *("verify-signature", "--document", document, "--signature", signature),
            NAMESPACE="a/b",
            LOG_LEVEL="LOUD",
        )
        assert done.code == 2
        assert "/namespace" in done.err
        assert "/log_level" in done.err

    def test_a_settings_file_that_is_missing_is_named(self, document: Path, signature: Path) -> None:
        done = constitution(
            "--env-file", "no.env", "verify-signature", "--document", document, "--signature", signature
        )
        assert done.code == 2
        assert "settings file no.env: No such file or directory" in done.err
