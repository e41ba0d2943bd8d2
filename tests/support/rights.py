"""Doing without what root may: reading and writing whatever a file's mode says. Other users need none of this."""

import ctypes
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_OVERRIDES = (1 << 1) | (1 << 2) | (1 << 3)  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER
_VERSION_3 = 0x20080522
_PR_CAPBSET_DROP = 24


@contextmanager
def bound_by_file_modes() -> Iterator[None]:
    """File modes count inside the block, for this thread and those that it starts."""
    if os.geteuid() != 0 or sys.platform != "linux":
        yield
        return
    before = _capabilities()
    effective, permitted, inheritable, *more = before
    _set((effective & ~_OVERRIDES, permitted, inheritable, *more))
    try:
        yield
    finally:
        _set(before)


def drop_overrides() -> None:
    """As `bound_by_file_modes`, for good, in what this process executes next; for `preexec_fn`."""
    if os.geteuid() == 0 and sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        for capability in (1, 2, 3):
            if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
                raise OSError(ctypes.get_errno(), "prctl")


def _capabilities() -> tuple[int, ...]:
    data = ctypes.create_string_buffer(24)
    _call("capget", data)
    return struct.unpack("6I", data.raw)


def _set(capabilities: tuple[int, ...]) -> None:
    _call("capset", ctypes.create_string_buffer(struct.pack("6I", *capabilities), 24))


def _call(name: str, data: "ctypes.Array[ctypes.c_char]") -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    head = ctypes.create_string_buffer(struct.pack("Ii", _VERSION_3, 0), 8)
    if getattr(libc, name)(head, data):
        raise OSError(ctypes.get_errno(), name)
