# SPDX-License-Identifier: Apache-2.0
"""The MAC table from outside: its counts, what it reports, and sweeping out what is void.

The program itself takes old entries and those of a changed port for absent, so nothing depends on
when a sweep comes. It is a batch of system calls, meant for a thread of its own.
"""

import struct
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import FdbKey, FdbValue, Limits
from heliograph.kernel.snapshot import BridgeEntry, mac_age_ticks

_KEY, _VALUE = layouts.FDB_KEY.size, layouts.FDB_VALUE.size
# One call takes whole buckets; with 2^20 of them none comes near this.
_CHUNK = 8192
_WORD = 0xFFFFFFFF
# How long a MAC that moved too often is still spoken of, in ticks.
_FLAP_TICKS = 10


def now_tick() -> int:
    """The program's clock: 2^30 ns of CLOCK_MONOTONIC."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> Limits.TICK_SHIFT


class Flap(NamedTuple):
    """A MAC that moved between two ports, by number, more than 100 times in a second."""

    mac: str
    vlan: int
    ports: tuple[int, int]


class _Entry(NamedTuple):
    key: bytes
    bridge: int
    port: int
    seen: int

    @property
    def host(self) -> tuple[bytes, int]:
        """MAC and VLAN."""
        key = FdbKey.unpack(self.key)
        return key.mac, key.vlan


class _Tally:
    """An array of counters of entries that only user space writes."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def all(self) -> list[int]:
        return [int(struct.unpack("=I", data)[0]) for _, data in bpf.items(self._fd, 4, 4)]

    def read(self, number: int) -> int:
        data = bpf.lookup(self._fd, struct.pack("=I", number), 4)
        assert data is not None  # arrays have every element
        return int(struct.unpack("=I", data)[0])

    def write(self, number: int, value: int) -> None:
        bpf.update(self._fd, struct.pack("=I", number), struct.pack("=I", value & _WORD))


class Fdb:
    """The MAC table of all bridges, by the file descriptors of its maps (bpf/maps.h)."""

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._table = maps["fdb"]
        self._counts = maps["fdb_learned"]
        self._flaps = maps["fdb_flaps"]
        self._removed = _Tally(maps["fdb_removed"])
        self._port_learned = _Tally(maps["fdb_port_learned"])
        self._port_removed = _Tally(maps["fdb_port_removed"])

    def _entries(self) -> Iterable[tuple[bytes, FdbValue]]:
        for key, value in bpf.items(self._table, _KEY, _VALUE, chunk=_CHUNK):
            yield key, FdbValue.unpack(value)

    def recount(self) -> None:
        """Make the counts those of what is there, after a crash between the two."""
        before = self._learned()
        bridges: Counter[int] = Counter()
        ports: Counter[int] = Counter()
        for key, value in self._entries():
            bridges[FdbKey.unpack(key).bridge] += 1
            ports[value.port] += 1
        self._correct(before, bridges, ports)

    def _learned(self) -> tuple[list[int], list[int]]:
        """What the program has counted, by bridge and by port."""
        counts = bpf.items(self._counts, 4, layouts.FDB_COUNT.size)
        bridges = [layouts.FdbCount.unpack(data).entries for _, data in counts]
        return bridges, self._port_learned.all()

    def _correct(
        self, before: tuple[list[int], list[int]], bridges: Counter[int], ports: Counter[int]
    ) -> None:
        """Make the counts those of the entries that were found, where the program has counted
        nothing since `before`: two CPUs that move one MAC at once both count it, say."""
        tallies = (self._removed, self._port_removed)
        for tally, was, now, found in zip(
            tallies, before, self._learned(), (bridges, ports), strict=True
        ):
            for number, (removed, learned) in enumerate(zip(tally.all(), now, strict=True)):
                right = (learned - found[number]) & _WORD
                if learned == was[number] and removed != right:
                    tally.write(number, right)

    def _count(self, bridge: int) -> layouts.FdbCount:
        data = bpf.lookup(self._counts, struct.pack("=I", bridge), layouts.FDB_COUNT.size)
        assert data is not None  # arrays have every element
        return layouts.FdbCount.unpack(data)

    def entries(self, bridge: int) -> int:
        """How many MACs a bridge's table holds, void ones included."""
        return (self._count(bridge).entries - self._removed.read(bridge)) & _WORD

    def refused(self, bridge: int) -> int:
        """How many frames found the bridge's table full for their source."""
        return self._count(bridge).refused

    def flap(self, bridge: int) -> Flap | None:
        """The MAC that moves too often on a bridge, if one does now."""
        data = bpf.lookup(self._flaps, struct.pack("=I", bridge), layouts.FDB_FLAP_SIZE)
        assert data is not None  # arrays have every element
        key, (tick, one, other) = FdbKey.unpack(data[:_KEY]), struct.unpack("=III", data[_KEY:])
        if not tick or (now_tick() - tick) & _WORD > _FLAP_TICKS:
            return None
        return Flap(key.mac.hex(":"), key.vlan, (min(one, other), max(one, other)))

    def sweep(self, bridges: Mapping[int, BridgeEntry]) -> int:
        """Remove what is void now, the same MACs in the other bridges when their port is gone
        (rule 61), and what is over a bridge's limit, the oldest of the largest ports first (D11);
        `bridges` by slot. Returns how many were removed."""
        ages = {slot: mac_age_ticks(bridge) for slot, bridge in bridges.items()}
        generations = {
            (slot, port.number): port.generation
            for slot, bridge in bridges.items()
            for port in bridge.ports
        }
        now = now_tick()
        before = self._learned()
        held: tuple[Counter[int], Counter[int]] = Counter(), Counter()
        void: list[_Entry] = []
        valid: dict[int, list[_Entry]] = {}
        for key, value in self._entries():
            bridge = FdbKey.unpack(key).bridge
            entry = _Entry(key, bridge, value.port, value.seen)
            held[0][bridge] += 1
            held[1][value.port] += 1
            age = (now - value.seen) & _WORD
            # A frame newer than `now` may have refreshed it: then the difference wraps.
            old = ages.get(bridge, -1) < age < 0x80000000
            if old or generations.get((bridge, value.port)) != value.generation:
                void.append(entry)
            else:
                valid.setdefault(bridge, []).append(entry)
        self._correct(before, *held)
        homeless = {entry.host for entry in void if (entry.bridge, entry.port) not in generations}
        for slot, entries in valid.items():
            staying = entries
            if homeless:
                void += [entry for entry in entries if entry.host in homeless]
                staying = [entry for entry in entries if entry.host not in homeless]
            void += _surplus(staying, bridges[slot].mac_limit)
        return self._remove(void)

    def _remove(self, entries: list[_Entry]) -> int:
        gone: list[_Entry] = []
        while entries:
            chunk, entries = entries[:_CHUNK], entries[_CHUNK:]
            done = bpf.delete_batch(self._table, [entry.key for entry in chunk])
            gone += chunk[:done]
            # It stopped at one that the program has removed meanwhile.
            entries = chunk[done + 1 :] + entries
        for tally, numbers in (
            (self._removed, Counter(entry.bridge for entry in gone)),
            (self._port_removed, Counter(entry.port for entry in gone)),
        ):
            for number, count in numbers.items():
                tally.write(number, tally.read(number) + count)
        return len(gone)


def _surplus(entries: list[_Entry], limit: int) -> list[_Entry]:
    """Those of one bridge that are over its limit."""
    ports: dict[int, list[_Entry]] = {}
    for entry in sorted(entries, key=lambda entry: -entry.seen):
        ports.setdefault(entry.port, []).append(entry)
    return [max(ports.values(), key=len).pop() for _ in range(len(entries) - limit)]
