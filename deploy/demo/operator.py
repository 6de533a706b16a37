"""The operator of the story: runs the very commands that the README shows, in this process, and keeps their answers."""

import contextlib
import io
import json
import shlex
from pathlib import Path
from typing import Any

from constitution_client.main import run
from deploy.demo.screen import Screen


class CommandFailedError(RuntimeError):
    """A command of the story did not exit with 0."""


class Operator:
    """Runs ``constitution`` commands.

    In this process because each start of Python costs a second and a half on two busy cores, and there are thirty;
    it is the same ``run`` that the script ``constitution`` calls.

    Args:
        screen: where each command is shown as a person would type it.
        keys: folder of the board's and maintainers' keys.
        drafts: folder of drafts and signatures.
    """

    def __init__(self, screen: Screen, keys: Path, drafts: Path) -> None:
        self._screen = screen
        self._keys = keys
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

    def key(self, person: str) -> str:
        """Return the path of a person's key."""
        return str(self._keys / f"{person}.tsk")

    def paper(self, name: str) -> Path:
        """Return the path of a draft or signature."""
        return self._drafts / name
