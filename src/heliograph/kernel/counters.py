# SPDX-License-Identifier: Apache-2.0
"""Reading the per-CPU counters. Nothing is counted in Python."""

import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import Reason

SEGMENTER_SECONDS = 0.005
READINGS = 5  # in that time
_PORT_HANDED = layouts.PortCounters._fields.index("handed")
_MIRROR_HANDED = layouts.MirrorCounters._fields.index("handed")
_KEYS = dict(zip(list(Reason)[1:-1], layouts.REASON_WORDS, strict=True))


@dataclass(frozen=True, slots=True)
class PortCounts:
    """Frames of the wire and their bytes; `drops` by reason, those that are not 0."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    cut_mtu: int
    drops: dict[Reason, int]


@dataclass(frozen=True, slots=True)
class MirrorCounts:
    """`packets` selected = `delivered` + the sum of `drops` (departure D2); `cut_mtu` of those
    delivered are cut to the MTU of a tunnel's way."""

    packets: int
    bytes: int
    delivered: int
    cut_mtu: int
    drops: dict[Reason, int]

    @property
    def copies(self) -> int:
        """Hand-overs tried: with an output_port as many as packets selected."""
        return self.delivered + sum(self.drops.values())


@dataclass(frozen=True, slots=True)
class Counts:
    """What slots had counted when they were read together."""

    ports: dict[int, PortCounts]
    mirrors: dict[int, MirrorCounts]


def drop_key(reason: Reason) -> str:
    """A reason's key in the statistics columns."""
    return f"drop_{_KEYS[reason]}"


def _drops(values: list[int]) -> dict[Reason, int]:
    return {Reason(number): value for number, value in enumerate(values) if value and number}


class CounterMap:
    """A per-CPU array of structs of 64-bit counters."""

    def __init__(self, fd: int, size: int, cpus: int) -> None:
        self._fd = fd
        self._size = size
        self._cpus = cpus
        self._all = struct.Struct(f"={size // 8 * cpus}Q")

    def read(self, slot: int) -> list[int]:
        """The struct's counters, summed over the CPUs."""
        data = bpf.lookup(self._fd, struct.pack("=I", slot), self._size * self._cpus)
        assert data is not None  # arrays have every element
        values = self._all.unpack(data)
        width = self._size // 8
        return [sum(values[field::width]) for field in range(width)]

    def zero(self, slot: int) -> None:
        """Set a slot's counters to 0."""
        bpf.update(self._fd, struct.pack("=I", slot), bytes(self._size * self._cpus))


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of ports and mirrors, by slot."""

    port_map: CounterMap
    mirror_map: CounterMap

    @classmethod
    def of(cls, port_fd: int, mirror_fd: int) -> Self:
        """From the file descriptors of the maps port_stats and mirror_stats."""
        cpus = bpf.cpu_count()
        return cls(
            CounterMap(port_fd, layouts.PORT_COUNTERS.size, cpus),
            CounterMap(mirror_fd, layouts.MIRROR_COUNTERS.size, cpus),
        )

    def read(self, ports: Iterable[int], mirrors: Iterable[int]) -> Counts:
        """What these ports and mirrors have counted. It may wait a moment, once for all of them:
        where others must not, it belongs into a thread."""
        seen = {slot: _Reading(self.port_map, slot, _PORT_HANDED) for slot in ports}
        selected = {slot: _Reading(self.mirror_map, slot, _MIRROR_HANDED) for slot in mirrors}
        away = [r for r in (*seen.values(), *selected.values()) if r.missing]
        for _ in range(READINGS if away else 0):
            # What is on its way through the segmenter is there in a moment; what is not is lost.
            time.sleep(SEGMENTER_SECONDS / READINGS)
            for reading in away:
                reading.again()
        return Counts(
            {slot: _port(reading) for slot, reading in seen.items()},
            {slot: _mirror(reading) for slot, reading in selected.items()},
        )


class _Reading:
    """A slot's counters at the moment when the fewest packets were `missing`: lost in the
    segmenter, or still in it. What went in is read after what came out: none is overlooked."""

    def __init__(self, counters: CounterMap, slot: int, handed: int) -> None:
        self._counters, self._slot, self._handed = counters, slot, handed
        self.values = counters.read(slot)
        self.missing = self.values[handed] - self.values[handed + 1]
        if self.missing:
            self.missing = self._missing(self.values)

    def _missing(self, values: list[int]) -> int:
        later = self._counters.read(self._slot)
        return max(later[self._handed] - values[self._handed + 1], 0)

    def again(self) -> None:
        """Read once more."""
        values = self._counters.read(self._slot)
        missing = self._missing(values)
        if missing <= self.missing:
            self.values, self.missing = values, missing


def _port(reading: _Reading) -> PortCounts:
    received, received_bytes, sent, sent_bytes, _, _, cut, *drops = reading.values
    drops[Reason.DROP_SEGMENTER] = reading.missing
    return PortCounts(received, received_bytes, sent, sent_bytes, cut, _drops(drops))


def _mirror(reading: _Reading) -> MirrorCounts:
    selected, selected_bytes, delivered, _, _, cut, *drops = reading.values
    drops[Reason.DROP_SEGMENTER] = reading.missing
    return MirrorCounts(selected, selected_bytes, delivered, cut, _drops(drops))
