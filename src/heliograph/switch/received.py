# SPDX-License-Identifier: Apache-2.0
"""What has come in by the ports of bridges, told on and on while ports come and go."""

from collections.abc import Callable, Iterable, Mapping
from uuid import UUID

from heliograph.control.wanted import NO_FRAMES, Tally
from heliograph.kernel.counters import CounterMap
from heliograph.kernel.layouts import PortCounters, Reason
from heliograph.switch.slots import Slots

_PACKETS, _BYTES, _DROPS = (
    PortCounters._fields.index(name) for name in ("rx_packets", "rx_bytes", "drops")
)
# Reasons for which a frame that has been counted as received meets no flow.
_BEFORE_FLOWS = Reason.DROP_RESERVED_PORT, Reason.DROP_NO_RECEIVE, Reason.DROP_NO_FORWARDING


class Received:
    """`in_force` says whose the slots are."""

    def __init__(self, counters: CounterMap, in_force: Callable[[], Slots]) -> None:
        self._counters, self._in_force = counters, in_force
        self._ports: dict[UUID, Mapping[UUID, int]] = {}
        self._departed: dict[UUID, Tally] = {}

    def follow(self, bridge: UUID, ports: Mapping[UUID, int]) -> Tally:
        """A bridge has these ports from now on, by row their slots.

        Returns what was received by ports that it has no longer, less what those that came later
        had received before.
        """
        old = self._ports.get(bridge, ports)
        departed = self._departed.get(bridge, NO_FRAMES)
        if ports != old:
            departed = departed.plus(self._sum(old.items() - ports.items()))
            departed = departed.minus(self._sum(ports.items() - old.items()))
        self._ports[bridge], self._departed[bridge] = ports, departed
        return departed

    def total(self, bridge: UUID) -> Tally:
        """By ports that the bridge has and has had."""
        return self._sum(self._ports[bridge].items()).plus(self._departed[bridge])

    def forget(self, bridge: UUID) -> None:
        """It is gone."""
        self._ports.pop(bridge, None)
        self._departed.pop(bridge, None)

    def _sum(self, ports: Iterable[tuple[UUID, int]]) -> Tally:
        total, owners = NO_FRAMES, self._in_force().ports
        for row, slot in ports:
            # Until a slot is a port's, its counters are those of another that is gone.
            if owners.get(row) == slot:
                total = total.plus(_seen(self._counters.read(slot)))
        return total


def _seen(values: list[int]) -> Tally:
    """By flows, or by the learning switch. What is not was as long as all frames on average."""
    packets, octets = values[_PACKETS], values[_BYTES]
    kept = max(packets - sum(values[_DROPS + reason] for reason in _BEFORE_FLOWS), 0)
    return Tally(kept, octets * kept // packets if packets else 0)
