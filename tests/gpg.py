"""Signs files as a person does whose secret key this product never sees: by GnuPG and its agent, in another process.

On a machine without GnuPG the OpenPGP library signs, which is the product's own; a test's id says which of them did.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from signatures.openpgp import fingerprint_of_key, sign_detached

GPG: Final = shutil.which("gpg")
SIGNER: Final = "gpg" if GPG else "library"


class Hand:
    """A person's key, elsewhere."""

    def __init__(self, tsk: bytes, home: Path) -> None:
        self._tsk = tsk
        self.fingerprint = fingerprint_of_key(tsk)
        self.environment = {**os.environ, "GNUPGHOME": str(home)}
        if GPG:
            self._gpg("--import", stdin=tsk)

    def sign(self, file: Path, *, armor: bool = False) -> Path:
        """Write a detached signature of a file beside it."""
        if not GPG:
            signature = file.with_name(file.name + ".sig")
            signature.write_bytes(sign_detached(file.read_bytes(), self._tsk))
            return signature
        self._gpg("--local-user", self.fingerprint, *(["--armor"] if armor else []), "--detach-sign", str(file))
        return file.with_name(file.name + (".asc" if armor else ".sig"))

    def obey(self, command: str, folder: Path) -> None:
        """Run the command that a person was told to sign with."""
        words = command.split()
        assert words[0] == "gpg"
        assert words[1:-2] in ([], ["--local-user", self.fingerprint])
        assert words[-2] == "--detach-sign"
        if GPG:
            self._gpg(*words[1:], cwd=folder)
        else:
            self.sign(folder / words[-1])

    def _gpg(self, *arguments: str, stdin: bytes = b"", cwd: Path | None = None) -> None:
        done = subprocess.run(  # noqa: S603 - gpg of this machine
            [str(GPG), "--batch", "--quiet", *arguments],
            input=stdin,
            cwd=cwd,
            env=self.environment,
            capture_output=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def hand(tsk: bytes) -> Iterator[Hand]:
    """A person's key in a GnuPG home folder of its own, whose agent ends with it."""
    with TemporaryDirectory(prefix="gpg-") as home:  # a short path: the agent's socket in it may have 107 bytes
        person = Hand(tsk, Path(home))
        try:
            yield person
        finally:
            if GPG:
                subprocess.run(["gpgconf", "--kill", "all"], env=person.environment, check=True)  # noqa: S607
