# SPDX-License-Identifier: Apache-2.0
"""Frames that lie ready in memory and are sent as fast as one CPU can."""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Iterator, Sequence

BATCH = 64
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.POINTER(_Mmsghdr), ctypes.c_uint, ctypes.c_int)
_libc.sendmmsg.restype = ctypes.c_int


class Frames:
    """Frames of one length, repeated until they fill whole batches."""

    def __init__(self, frames: Sequence[bytes]) -> None:
        self.count = -(-len(frames) // BATCH) * BATCH
        self._length = len(frames[0])
        self._data = bytearray(b"".join(frames[n % len(frames)] for n in range(self.count)))
        base = ctypes.addressof(ctypes.c_char.from_buffer(self._data))
        self._vectors = (_Iovec * self.count)()
        self._messages = (_Mmsghdr * self.count)()
        for number in range(self.count):
            vector, header = self._vectors[number], self._messages[number].header
            vector.base, vector.length = base + number * self._length, self._length
            header.iov, header.iovlen = ctypes.pointer(vector), 1

    def replace(self, number: int, frame: bytes) -> None:
        """Another frame of the same length in the place of one."""
        self._data[number * self._length : (number + 1) * self._length] = frame

    def randomise(self, offsets: Sequence[int]) -> None:
        """Put random bytes at these offsets of every frame."""
        for offset in offsets:
            self._data[offset :: self._length] = os.urandom(self.count)

    def send(self, out: socket.socket, seconds: float) -> tuple[int, float]:
        """Send them again and again; how many frames that were, and for how many seconds."""
        out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sent = at = 0
        start = time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            sent += self._batch(out, at)
            at = (at + BATCH) % self.count
        return sent, now - start

    def send_once(self, out: socket.socket) -> int:
        """Send each once; how many were taken."""
        out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        return sum(self._batch(out, at) for at in range(0, self.count, BATCH))

    def _batch(self, out: socket.socket, at: int) -> int:
        done = _libc.sendmmsg(out.fileno(), ctypes.byref(self._messages[at]), BATCH, 0)
        return max(int(done), 0)  # a full transmit queue is the device's answer, not an error


@contextlib.contextmanager
def on_cpu(number: int) -> Iterator[None]:
    """The calling thread on one of the CPUs we may use, counted from 0 and round again."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(allowed)[number % len(allowed)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
