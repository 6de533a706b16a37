"""Checks the machine for a stack's needs before anything begins, and names each missing part."""

import os
import platform
import subprocess

from deploy.embedded.control import StackError

WANTED = "Linux 5.3 or newer and setpriv of util-linux 2.33 or newer"


def check_machine() -> None:
    """Ask for what supervision stands on: pidfd_open(2), and setpriv(1) with ``--pdeathsig``.

    Raises:
        StackError: one of them is missing; the text says which, and which systems have it.
    """
    missing = [*kernel_lacks(), *setpriv_lacks()]
    if missing:
        raise StackError(
            f"this machine cannot run the stack: {'; '.join(missing)}. It takes {WANTED} "
            "(Debian 11, Ubuntu 20.04, RHEL 9 and later); there, or against servers of your own, all else works"
        )


def kernel_lacks() -> list[str]:
    """What is missing of the kernel."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:  # not built into this Python; unknown to the kernel or forbidden by it
        return [f"its kernel, {platform.release()}, does not give a descriptor of a process (pidfd_open: {error})"]
    return []


def setpriv_lacks() -> list[str]:
    """What is missing of util-linux."""
    try:
        help_text = subprocess.run(["setpriv", "--help"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ["it has no setpriv (package util-linux)"]
    return [] if "--pdeathsig" in help_text else ["its setpriv (package util-linux) does not know --pdeathsig"]
