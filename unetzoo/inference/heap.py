"""Large blocks of memory kept between the layers of a network, instead of handed back and cleared anew for each.

glibc maps every block above 32 MB by itself and unmaps it when it is freed. A network of large feature maps then spends
more time in the kernel, which clears the pages of each new map, than in its convolutions (measured: 1.2 to 0.55 µs
a pixel for a U-Net of width 8 on windows of 1536²). It also hands back what lies free at the heap's end: a BN-UNet of
the paper's width then gets 45,000 pages anew for each answer of 256², a tenth of its time.
"""

from __future__ import annotations

import ctypes
import platform
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # of <malloc.h>
NEVER = -1
USUAL = {MMAP_THRESHOLD: 2**25, TRIM_THRESHOLD: 2**26, MMAP_MAX: 65536}  # where glibc's own adjustment ends
WORTH = 2**18
LEFT_FREE = 2**30  # bytes that the heap may keep while an owner of `keep_freed` lives

_lock = threading.RLock()  # the garbage collector may let an owner go while it is held
_users = _owners = 0


@contextmanager
def kept_blocks(pixels: int) -> Iterator[None]:
    """Keep freed blocks for the next layer inside; give them back at the end. Elsewhere than on glibc, nothing.

    Args:
        pixels: Of a window; for small ones it is not worth the return of the blocks.
    """
    global _users
    libc = _glibc() if pixels >= WORTH else None
    if libc is None:
        yield
        return
    with _lock:
        _users += 1
        _settle(libc)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            _settle(libc)


def keep_freed(owner: object) -> None:
    """Keep up to a gigabyte of freed memory for what comes next, as long as an object lives. Only on glibc."""
    global _owners
    if libc := _glibc():
        with _lock:
            _owners += 1
            _settle(libc)
        weakref.finalize(owner, _let_go, libc)


def _let_go(libc: ctypes.CDLL) -> None:
    global _owners
    with _lock:
        _owners -= 1
        _settle(libc)


def _settle(libc: ctypes.CDLL) -> None:
    if _users:
        libc.mallopt(MMAP_MAX, 0)
        libc.mallopt(TRIM_THRESHOLD, NEVER)
        return
    for option, value in USUAL.items():
        libc.mallopt(option, value)
    if _owners:
        libc.mallopt(TRIM_THRESHOLD, LEFT_FREE)
    else:
        libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
