# SPDX-License-Identifier: Apache-2.0
"""The MAC table from outside: its counts, what it reports, and sweeping out what is void.

The program itself takes old entries and those of a changed port for absent, so nothing depends on
when a sweep comes. It is cut into slices of a few milliseconds, each for a thread, so that nobody
waits for it; a table goes on changing between them. What only the whole of a table shows (hosts
whose port is gone, entries over a limit) is removed by a second pass, which the first one orders.
"""

import itertools
import struct
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import FdbKey, FdbValue, Limits
from heliograph.kernel.snapshot import BridgeEntry, mac_age_ticks

_KEY, _VALUE, _PLACE = layouts.FDB_KEY.size, layouts.FDB_VALUE.size, layouts.FDB_PLACE.size
# Of a slice. One call takes whole buckets; with 2^20 of them none comes near either.
_ENTRIES, _PLACES = 2048, 1024
_HOST = _KEY - 4
_WORD, _HALF = 0xFFFFFFFF, 0x80000000
_unpack_key, _unpack_value = layouts.FDB_KEY.unpack, layouts.FDB_VALUE.unpack
# How long a MAC that moved too often is still spoken of, in ticks.
_FLAP_TICKS = 10

Bridges = Mapping[int, BridgeEntry]  # by slot
Owner = tuple[int, int]  # bridge and port
Host = bytes  # MAC and VLAN: a key without its bridge


def now_tick() -> int:
    """The program's clock: 2^30 ns of CLOCK_MONOTONIC."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC) >> Limits.TICK_SHIFT


class Flap(NamedTuple):
    """A MAC that moved between two ports, by number, more than 100 times in a second."""

    mac: str
    vlan: int
    ports: tuple[int, int]


class _View:
    """What an entry is held against: the bridges in force."""

    def __init__(self, bridges: Bridges) -> None:
        self.bridges = bridges
        self.ages = {slot: mac_age_ticks(bridge) for slot, bridge in bridges.items()}
        self.generations = {
            (slot, port.number): port.generation
            for slot, bridge in bridges.items()
            for port in bridge.ports
        }


@dataclass
class _Orders:
    """What one pass has found for the next one to remove."""

    homeless: set[Host] = field(default_factory=set)
    surplus: Counter[tuple[Owner, int]] = field(default_factory=Counter)  # by owner and tick

    def __bool__(self) -> bool:
        return bool(self.homeless or self.surplus)

    def take(self, host: Host, owner: Owner, seen: int) -> bool:
        """Whether this entry is among them."""
        if host in self.homeless:
            return True
        if self.surplus[owner, seen] > 0:
            self.surplus[owner, seen] -= 1
            return True
        return False


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
        self._order = maps["fdb_order"]
        self._counts = maps["fdb_learned"]
        self._flaps = maps["fdb_flaps"]
        self._removed = _Tally(maps["fdb_removed"])
        self._port_learned = _Tally(maps["fdb_port_learned"])
        self._tallies = self._removed, _Tally(maps["fdb_port_removed"])
        self._wrong: dict[tuple[int, int], int] = {}  # what the last pass took for errors
        self._pruned: dict[int, int] | None = None  # limits when the places were looked over
        self._freed = 0  # places since then

    def recount(self) -> None:
        """Make the counts those of what is there, after a crash between the two."""
        before = self._learned()
        held = Counter(
            (FdbKey.unpack(key).bridge, FdbValue.unpack(value).port)
            for key, value in bpf.items(self._table, _KEY, _VALUE, chunk=_ENTRIES)
        )
        self._mend(self._errors(before, held))

    def _learned(self) -> tuple[list[int], list[int]]:
        """What the program has counted, by bridge and by port."""
        counts = bpf.items(self._counts, 4, layouts.FDB_COUNT.size)
        bridges = [layouts.FdbCount.unpack(data).entries for _, data in counts]
        return bridges, self._port_learned.all()

    def _errors(
        self, before: tuple[list[int], list[int]], held: Counter[Owner]
    ) -> dict[tuple[int, int], int]:
        """By tally and number, by how much it differs from the entries that were found, where the
        program has counted nothing since `before`: two CPUs that move one MAC at once both count
        it, say."""
        found = _by_bridge_and_port(held)
        return {
            (index, number): error
            for index, (was, now) in enumerate(zip(before, self._learned(), strict=True))
            for number, removed in enumerate(self._tallies[index].all())
            if now[number] == was[number]
            and (error := (removed + found[index][number] - now[number]) & _WORD)
        }

    def _mend(self, errors: Mapping[tuple[int, int], int]) -> None:
        for (index, number), error in errors.items():
            tally = self._tallies[index]
            tally.write(number, tally.read(number) - error)

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

    def sweep(self, bridges: Callable[[], Bridges]) -> Iterator[None]:
        """Remove what is void, the same MACs in the other bridges when their port is gone
        (rule 61), and what is over a bridge's limit, the oldest of the largest ports first (D11),
        in slices. `bridges` says, between them, what is in force: the same object while that
        does not change."""
        orders = yield from self._pass(bridges, _Orders())
        while orders:
            orders = yield from self._pass(bridges, orders)
        limits = _limits(bridges())
        # A free place is used again by its bridge; only many of them would keep others from theirs.
        if limits != self._pruned or self._freed > sum(map(self.entries, limits)):
            self._freed = 0
            yield from self._prune(bridges)
            self._pruned = limits

    def _pass(
        self, bridges: Callable[[], Bridges], orders: _Orders
    ) -> Generator[None, None, _Orders]:
        """Look at every entry once; returns the orders for another pass."""
        before = self._learned()
        view = _View(bridges())
        crowded = {
            slot for slot, limit in _limits(view.bridges).items() if self.entries(slot) > limit
        }
        kept: Counter[Owner] = Counter()
        ticks: Counter[tuple[Owner, int]] = Counter()
        fresh = _Orders()
        entries = bpf.items(self._table, _KEY, _VALUE, chunk=_ENTRIES)
        while some := list(itertools.islice(entries, _ENTRIES)):
            if bridges() is not view.bridges:
                view = _View(bridges())
            void: dict[bytes, Owner] = {}
            staying: list[Owner] = []
            now = now_tick()
            for key, value in some:
                *_, bridge = _unpack_key(key)
                port, generation, seen, *_ = _unpack_value(value)
                owner = bridge, port
                # A frame newer than `now` may have refreshed it: then the difference wraps.
                age = (now - seen) & _WORD
                valid = view.generations.get(owner)
                if valid != generation or view.ages[bridge] < age < _HALF:
                    void[key] = owner
                    if valid is None and view.bridges.keys() - {bridge}:
                        fresh.homeless.add(key[:_HOST])
                elif orders and orders.take(key[:_HOST], owner, seen):
                    void[key] = owner
                else:
                    staying.append(owner)
                    if bridge in crowded:
                        ticks[owner, seen] += 1
            kept.update(staying)
            self._remove(void)
            yield
        errors = self._errors(before, kept)
        # What came and went during the pass may look like an error, but not twice the same.
        self._mend({at: error for at, error in errors.items() if self._wrong.get(at) == error})
        self._wrong = errors
        fresh.surplus = _surplus(ticks, _limits(view.bridges))
        return fresh

    def _remove(self, entries: Mapping[bytes, Owner]) -> None:
        gone = [entries[key] for key in _delete(self._table, list(entries))]
        self._freed += len(gone)
        for tally, counts in zip(self._tallies, _by_bridge_and_port(Counter(gone)), strict=True):
            for number, count in counts.items():
                tally.write(number, tally.read(number) + count)

    def _prune(self, bridges: Callable[[], Bridges]) -> Iterator[None]:
        """Free the places of bridges that are gone, those beyond the limit, and those whose entry
        is gone or says another place. A place that is taken again just now may be lost to its
        entry, which is only spared then."""
        places = bpf.items(self._order, _PLACE, _KEY, chunk=_PLACES)
        while some := list(itertools.islice(places, _PLACES)):
            limits = _limits(bridges())
            _delete(self._order, [at for at, key in some if self._is_free(at, key, limits)])
            yield

    def _is_free(self, place: bytes, key: bytes, limits: Mapping[int, int]) -> bool:
        bridge, number = layouts.FDB_PLACE.unpack(place)
        if number >= limits.get(bridge, 0):
            return True
        value = bpf.lookup(self._table, key, _VALUE)
        return value is None or FdbValue.unpack(value).place != number


def _limits(bridges: Bridges) -> dict[int, int]:
    return {slot: bridge.mac_limit for slot, bridge in bridges.items()}


def _by_bridge_and_port(held: Counter[Owner]) -> tuple[Counter[int], Counter[int]]:
    bridges: Counter[int] = Counter()
    ports: Counter[int] = Counter()
    for (bridge, port), count in held.items():
        bridges[bridge] += count
        ports[port] += count
    return bridges, ports


def _delete(table: int, keys: list[bytes]) -> list[bytes]:
    """Remove elements of a map; returns those that were there."""
    gone: list[bytes] = []
    while keys:
        done = bpf.delete_batch(table, keys)
        gone += keys[:done]
        keys = keys[done + 1 :]  # it stopped at one that the program has removed meanwhile
    return gone


def _surplus(
    ticks: Counter[tuple[Owner, int]], limits: Mapping[int, int]
) -> Counter[tuple[Owner, int]]:
    """How many entries of which port and tick are over their bridge's limit: a port with fewer
    than its share keeps them all, the others lose their oldest."""
    over: Counter[Owner] = Counter()
    ports: dict[int, Counter[Owner]] = {slot: Counter() for slot in limits}
    for (owner, _), count in ticks.items():
        if owner[0] in limits:
            ports[owner[0]][owner] += count
    for slot, totals in ports.items():
        left = limits[slot]
        for rank, (owner, total) in enumerate(reversed(totals.most_common())):
            share = min(total, left // (len(totals) - rank))
            left -= share
            over[owner] = total - share
    surplus: Counter[tuple[Owner, int]] = Counter()
    now = now_tick()
    for owner, seen in sorted(ticks, key=lambda group: (group[1] - now + _HALF) & _WORD):
        surplus[owner, seen] = min(over[owner], ticks[owner, seen])
        over[owner] -= surplus[owner, seen]
    return +surplus
