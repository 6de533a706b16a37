"""A machine that lacks what supervision stands on is named before anything is begun."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.embedded.machine import check_machine, kernel_lacks, setpriv_lacks
from deploy.embedded.stack_directory import CHECKOUT

# A kernel before 5.3 answers pidfd_open (434 everywhere) with ENOSYS; a filter (seccomp(2)) makes this one answer so.
OLD_KERNEL = """
import ctypes, struct
from deploy.embedded.machine import kernel_lacks
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 434), (0x06, 0, 0, 0x00050000 | 38), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
class Filter(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Filter(len(steps), ctypes.addressof(program)))) == 0
print(*kernel_lacks())
"""


def test_this_machine_has_it() -> None:
    check_machine()
    assert (kernel_lacks(), setpriv_lacks()) == ([], [])


def test_a_kernel_without_process_descriptors_is_named() -> None:
    done = subprocess.run([sys.executable, "-c", OLD_KERNEL], cwd=CHECKOUT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.stdout.endswith("(pidfd_open: [Errno 38] Function not implemented)\n"), done.stderr


def test_a_missing_setpriv_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert setpriv_lacks() == ["it has no setpriv (package util-linux)"]
