# SPDX-License-Identifier: Apache-2.0
"""Reading the per-CPU counters. Nothing is counted in Python."""

import struct
import time
from dataclasses import dataclass
from typing import Self

from heliograph.kernel import bpf, layouts
from heliograph.kernel.layouts import Reason

SEGMENTER_SECONDS = 0.005
_KEYS = dict(zip(list(Reason)[1:-1], layouts.REASON_WORDS, strict=True))


@dataclass(frozen=True, slots=True)
class PortCounts:
    """Frames of the wire and their bytes; `drops` by reason, those that are not 0."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int
    drops: dict[Reason, int]


@dataclass(frozen=True, slots=True)
class MirrorCounts:
    """`packets` selected = `delivered` + the sum of `drops` (departure D2)."""

    packets: int
    bytes: int
    delivered: int
    drops: dict[Reason, int]

    @property
    def copies(self) -> int:
        """Hand-overs tried: with an output_port as many as packets selected."""
        return self.delivered + sum(self.drops.values())


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

    def port(self, slot: int) -> PortCounts:
        """What a port has counted."""
        values = self.port_map.read(slot)
        received, received_bytes, sent, sent_bytes, *drops = values
        return PortCounts(received, received_bytes, sent, sent_bytes, _drops(drops))

    def mirror(self, slot: int) -> MirrorCounts:
        """What a mirror has counted."""
        values = self.mirror_map.read(slot)
        selected, selected_bytes, delivered, segmented, arrived, *drops = values
        if segmented != arrived:
            # What is on its way through the segmenter is there in a moment; what is not is lost.
            time.sleep(SEGMENTER_SECONDS)
            _, _, delivered, _, arrived, *drops = self.mirror_map.read(slot)
        drops[Reason.DROP_SEGMENTER] = max(segmented - arrived, 0)
        return MirrorCounts(selected, selected_bytes, delivered, _drops(drops))
