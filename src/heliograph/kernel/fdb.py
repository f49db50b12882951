# SPDX-License-Identifier: Apache-2.0
"""Sweeping the MAC table: entries that are void already are removed, to make room.

The program itself takes old entries and those of a changed port for absent, so nothing depends on
when this runs. It is one batch of system calls, meant for a thread of its own.
"""

import struct
import time
from collections import Counter
from collections.abc import Mapping

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import Limits
from heliograph.kernel.snapshot import BridgeEntry, mac_age_ticks

_KEY, _VALUE = layouts.FDB_KEY.size, layouts.FDB_VALUE.size
_BRIDGE_AT = 8
# One call takes whole buckets; with 2^20 of them none comes near this.
_CHUNK = 8192


def now_tick() -> int:
    """The program's clock: 2^30 ns of CLOCK_MONOTONIC."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> Limits.TICK_SHIFT


class Fdb:
    """The MAC table of all bridges, by the file descriptors of its three maps."""

    def __init__(self, table: int, learned: int, removed: int) -> None:
        self._table = table
        self._learned = learned
        self._removed = removed

    def recount(self) -> None:
        """Make the bridges' counts those of what is there, after a crash between the two."""
        there: Counter[int] = Counter()
        for key, _ in bpf.items(self._table, _KEY, _VALUE, chunk=_CHUNK):
            there[struct.unpack_from("=I", key, _BRIDGE_AT)[0]] += 1
        for bridge in range(Limits.MAX_BRIDGES):
            learned = self._count(bridge).entries
            self._set_removed(bridge, learned - there[bridge])

    def _count(self, bridge: int) -> layouts.FdbCount:
        data = bpf.lookup(self._learned, struct.pack("=I", bridge), layouts.FDB_COUNT.size)
        assert data is not None  # arrays have every element
        return layouts.FdbCount.unpack(data)

    def _set_removed(self, bridge: int, number: int) -> None:
        bpf.update(self._removed, struct.pack("=I", bridge), struct.pack("=I", number & 0xFFFFFFFF))

    def entries(self, bridge: int) -> int:
        """How many MACs a bridge's table holds, void ones included."""
        removed = bpf.lookup(self._removed, struct.pack("=I", bridge), 4)
        assert removed is not None
        return (self._count(bridge).entries - int(struct.unpack("=I", removed)[0])) & 0xFFFFFFFF

    def refused(self, bridge: int) -> int:
        """How many frames found the bridge's table full for their source."""
        return self._count(bridge).refused

    def sweep(self, bridges: Mapping[int, BridgeEntry]) -> int:
        """Remove what is void now; `bridges` by slot. Returns how many were removed."""
        now = now_tick()
        ages = {slot: mac_age_ticks(bridge) for slot, bridge in bridges.items()}
        ports = {
            (slot, port.number): port.generation
            for slot, bridge in bridges.items()
            for port in bridge.ports
        }
        void = []
        for key, value in bpf.items(self._table, _KEY, _VALUE, chunk=_CHUNK):
            (slot,) = struct.unpack_from("=I", key, _BRIDGE_AT)
            port, generation, seen = layouts.FDB_VALUE.unpack(value)
            age = (now - seen) & 0xFFFFFFFF
            # A frame newer than `now` may have refreshed it: then the difference wraps.
            old = ages.get(slot, -1) < age < 0x80000000
            if old or ports.get((slot, port)) != generation:
                void.append(key)
        gone: Counter[int] = Counter()
        for start in range(0, len(void), _CHUNK):
            chunk = void[start : start + _CHUNK]
            done = bpf.delete_batch(self._table, chunk)
            gone.update(struct.unpack_from("=I", key, _BRIDGE_AT)[0] for key in chunk[:done])
        for slot, number in gone.items():
            removed = bpf.lookup(self._removed, struct.pack("=I", slot), 4)
            assert removed is not None
            self._set_removed(slot, struct.unpack("=I", removed)[0] + number)
        return gone.total()
