"""What a thread has freed goes back to the system."""

import subprocess
import sys

# Twenty threads need 4 MiB each in pieces that glibc's own heaps serve, one thread after another, and stay alive.
PROGRAM = """
import ctypes, sys, threading
from adapters import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
if sys.argv[1] == "little":
    assert memory.limit_free_memory()
done, over = threading.Semaphore(0), threading.Event()

def work():
    pieces = [libc.malloc(4096) for _ in range(1024)]
    for piece in pieces:
        ctypes.memset(piece, 1, 4096)
    kept = libc.malloc(4096)  # at the end of the heap: what lies before it cannot be trimmed
    for piece in pieces:
        libc.free(piece)
    done.release()
    over.wait()

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 / 2**20

before = resident()
for _ in range(20):
    threading.Thread(target=work, daemon=True).start()
    done.acquire()
print(resident() - before)
over.set()
"""


def grown(how: str) -> float:
    """MiB that the process has grown by."""
    command = (sys.executable, "-c", PROGRAM, how)
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603 - our own
    return float(done.stdout)


def test_threads_that_work_in_turn_use_each_others_memory() -> None:
    assert grown("little") < 0.5 * grown("much")


# What asyncio does for each request: a piece of 256 KiB, filled with what was read, and given back.
REQUESTS = """
import ctypes, resource
from adapters import memory

libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
assert memory.limit_free_memory()

def request():
    piece = libc.malloc(256 * 1024)
    ctypes.memset(piece, 1, 256 * 1024)
    libc.free(piece)

request()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    request()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def test_a_request_is_read_into_memory_that_is_there() -> None:
    command = (sys.executable, "-c", REQUESTS)
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)  # noqa: S603 - our own
    assert int(done.stdout) < 200, "the kernel had to map pages for each request; 64 a request are all of them"
