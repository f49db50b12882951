# SPDX-License-Identifier: Apache-2.0
"""Frames for controllers, out of the ring buffer `packet_ins` (bpf/maps.h).

The kernel's side of it: a page with how far we have read, a page with how far it has written, and
the data, mapped twice in a row so that no record is in two parts. Each record has a header of
8 bytes, whose first word has its length and whether it is still being written, or void.
"""

import mmap
from collections.abc import Iterator

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import PacketIn

_BUSY, _DISCARDED = 1 << 31, 1 << 30
_HEADER = 8


class Ring:
    """`fd` is readable while there is something to read."""

    def __init__(self, fd: int) -> None:
        """`fd`: of the map; stays the caller's."""
        self.fd = fd
        self._size = bpf.map_shape(fd)[3]
        page = mmap.PAGESIZE
        self._ours = mmap.mmap(fd, page)
        self._theirs = mmap.mmap(
            fd, page + 2 * self._size, prot=mmap.PROT_READ, offset=page, flags=mmap.MAP_SHARED
        )
        self._consumed = memoryview(self._ours).cast("Q")
        self._produced = memoryview(self._theirs)[:8].cast("Q")
        self._data = memoryview(self._theirs)[page:]

    def read(self, limit: int = 256) -> Iterator[tuple[PacketIn, bytes]]:
        """So many at most of those that are there. One is done with once it is given."""
        position = self._consumed[0]
        for _ in range(limit):
            if position >= self._produced[0]:
                return
            start = position & self._size - 1
            head = self._data[start : start + 4].cast("I")[0]
            if head & _BUSY:
                return
            length = head & ~_DISCARDED
            body = bytes(self._data[start + _HEADER : start + _HEADER + length])
            position += _HEADER + length + 7 & ~7
            self._consumed[0] = position
            if not head & _DISCARDED:
                fixed = layouts.PACKET_IN.size
                packet_in = PacketIn.unpack(body[:fixed])
                yield packet_in, body[fixed : fixed + packet_in.captured]

    def close(self) -> None:
        for view in (self._consumed, self._produced, self._data):
            view.release()
        self._ours.close()
        self._theirs.close()
