"""Makes glibc return free memory to the system; with another C library it changes nothing.

glibc gives threads heaps of their own, up to eight a core, and each stays as large as its largest piece of work.
Our processes have some twenty threads, and what they read grows with the history of releases: a worker that had made a
hundred held 37 free MiB in such heaps, and more with each release. With two heaps it is as good as flat
(bench/README.md, Soak test).
"""

import ctypes

# Source: mallopt(3) and <malloc.h> of glibc.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
ARENAS = 2  # heaps of all threads; glibc's own limit is eight a core
LARGE = 512 * 1024
"""Bytes, instead of glibc's own default, which grows with what is freed. asyncio reads each request into a new piece of
256 KiB: below that, every request would have the kernel map, clear and unmap 64 pages (30 us of its 130 us)."""
FREE = 1024 * 1024  # bytes at a heap's top that stay; more than such a piece, or every request would move the top twice


def limit_free_memory() -> bool:
    """Limit the free memory that stays with the process; call it before threads begin. Return whether it holds."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:  # another C library
        return False
    options = ((M_ARENA_MAX, ARENAS), (M_MMAP_THRESHOLD, LARGE), (M_TRIM_THRESHOLD, FREE))
    done = [set_option(option, value) == 1 for option, value in options]  # all of them, whatever one answers
    return all(done)
