"""The operator of the story: runs the very commands that the README shows, in this process, and keeps their answers."""

import contextlib
import io
import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from constitution_client.main import run
from deploy.demo.screen import Screen
from deploy.embedded.stack_directory import write_private


class CommandFailedError(RuntimeError):
    """A command of the story did not exit with 0."""


class Operator:
    """Runs ``constitution`` commands.

    In this process because each start of Python costs a second and a half on two busy cores, and there are thirty;
    it is the same ``run`` that the script ``constitution`` calls.

    Args:
        screen: where each command is shown as a person would type it.
        settings: of the stack; they name the folder of everybody's keys.
        drafts: folder of drafts and signatures.
    """

    def __init__(self, screen: Screen, settings: Mapping[str, str], drafts: Path) -> None:
        self._screen = screen
        self._settings = settings
        self._keys = Path(settings["KEYS_DIRECTORY"])
        self._drafts = drafts
        drafts.mkdir(parents=True, exist_ok=True)

    def type(self, *arguments: str) -> dict[str, Any]:
        """Run one command with ``--json`` and return its answer.

        Raises:
            CommandFailedError: with what it printed.
        """
        self._screen.say("$ constitution " + shlex.join(self._short(argument) for argument in arguments), style="cyan")
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = run([*arguments, "--json"])
        if code != 0:
            raise CommandFailedError(
                f"constitution {shlex.join(arguments)} exited with {code}\n{out.getvalue()}{err.getvalue()}"
            )
        answer = json.loads(out.getvalue())
        return answer if isinstance(answer, dict) else {"answer": answer}

    def _short(self, argument: str) -> str:
        """Return an argument as a person standing in the demo's folder would type it."""
        for folder, name in ((self._keys, "keys"), (self._drafts, "drafts")):
            if argument.startswith(str(folder)):
                return name + argument.removeprefix(str(folder))
        return argument

    def decide(self, person: str, run: str, reason: str) -> None:
        """Approve a run as a member of the board: with a key file; where the stack has a login, one by passkey."""
        passkey = self._keys / f"{person}.passkey"
        told = ("--reason", reason)
        if not passkey.exists():
            self.type("approve", run, "--key", str(self._keys / f"{person}.tsk"), *told, "--yes")
            return
        from deploy.embedded.authenticator import Authenticator  # noqa: PLC0415 - not needed by a story with keys

        statement = self.paper(f"{run.rpartition('/')[2]}.{person}")
        written = self.type("approve", run, "--print-statement", str(statement), *told)
        origin = written["passkey_pages"][0].removesuffix("/passkeys")
        self._screen.say(
            f"  {person} signs it with a passkey; a browser does so on {origin}/passkeys, here it is software"
        )
        signature = statement.with_name(f"{statement.name}.sig")
        signature.write_bytes(
            Authenticator.load(passkey).sign(statement.read_bytes(), origin=origin, relying_party="localhost")
        )
        self.type("approve", run, "--signature", str(signature), "--yes")

    def signs(self, person: str) -> tuple[str, ...]:
        """Return how an author signs: with their key file; or, where the stack has a login, after logging in."""
        if "SIGSTORE_ISSUER_URL" not in self._settings:
            return "--key", str(self._keys / f"{person}.tsk")
        from deploy.embedded.sigstore.login import identity_token  # noqa: PLC0415 - not needed by a story with keys

        file = self.paper(f"{person}.token")
        write_private(file, identity_token(self._settings, person))
        return "--sigstore", "--identity-token", str(file)

    def paper(self, name: str) -> Path:
        """Return the path of a draft or signature."""
        return self._drafts / name
