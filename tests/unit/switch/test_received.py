# SPDX-License-Identifier: Apache-2.0
"""What bridges have received, while ports come, go and move."""

from typing import Any, cast
from uuid import UUID

from heliograph.control.wanted import NO_FRAMES, Tally
from heliograph.kernel.layouts import PORT_COUNTERS, Reason
from heliograph.switch.received import Received
from heliograph.switch.slots import Slots

BR0, BR1 = UUID(int=1), UUID(int=2)
A, B, C = (UUID(int=0xA + n) for n in range(3))


class Scene:
    def __init__(self) -> None:
        self.slots = Slots(ports={A: 1, B: 2})
        self.seen: dict[int, list[int]] = {}
        self.received = Received(cast("Any", self), lambda: self.slots)

    def read(self, slot: int) -> list[int]:
        """Stands for CounterMap."""
        return self.seen.setdefault(slot, [0] * (PORT_COUNTERS.size // 8))

    def comes(self, slot: int, packets: int) -> None:
        values = self.read(slot)
        values[0] += packets
        values[1] += 100 * packets

    def drop(self, slot: int, reason: Reason, packets: int) -> None:
        at = list(Reason).index(reason)
        self.read(slot)[7 + at] += packets


def tally(packets: int) -> Tally:
    return Tally(packets, 100 * packets)


def test_a_process_begins_with_all_that_the_ports_there_have_received() -> None:
    scene = Scene()
    scene.comes(1, 3)
    scene.comes(2, 4)
    scene.comes(3, 5)
    assert scene.received.follow(BR0, {A: 1, B: 2}) == NO_FRAMES
    assert scene.received.total(BR0) == tally(7)


def test_what_a_port_received_stays_when_it_goes() -> None:
    scene = Scene()
    scene.comes(1, 3)
    scene.received.follow(BR0, {A: 1, B: 2})
    assert scene.received.follow(BR0, {B: 2}) == tally(3)
    scene.comes(1, 3)
    scene.comes(2, 1)
    assert scene.received.total(BR0) == tally(4)
    assert scene.received.follow(BR0, {B: 2}) == tally(3)


def test_a_port_that_comes_counts_from_0_whosever_its_slot_was() -> None:
    scene = Scene()
    scene.received.follow(BR0, {A: 1})
    scene.comes(2, 9)  # of C, which is gone
    del scene.slots.ports[B]
    assert scene.received.follow(BR0, {A: 1, B: 2}) == NO_FRAMES
    assert scene.received.total(BR0) == NO_FRAMES
    scene.slots, scene.seen[2] = Slots(ports={A: 1, B: 2}), [0] * len(scene.seen[2])
    scene.comes(2, 2)
    assert scene.received.total(BR0) == tally(2)


def test_a_port_that_moves_takes_nothing_along() -> None:
    scene = Scene()
    scene.comes(1, 3)
    scene.received.follow(BR0, {A: 1})
    scene.received.follow(BR1, {B: 2})
    assert scene.received.follow(BR0, {}) == tally(3)
    assert scene.received.follow(BR1, {A: 1, B: 2}) == NO_FRAMES.minus(tally(3))
    scene.comes(1, 2)
    assert (scene.received.total(BR0), scene.received.total(BR1)) == (tally(3), tally(2))


def test_what_no_flow_would_have_met_does_not_count() -> None:
    scene = Scene()
    scene.received.follow(BR0, {A: 1})
    scene.comes(1, 10)
    scene.drop(1, Reason.DROP_VLAN, 9)  # the learning switch's doing, as in a flow with NORMAL
    assert scene.received.total(BR0) == tally(10)
    for reason in Reason.DROP_RESERVED_PORT, Reason.DROP_NO_RECEIVE, Reason.DROP_NO_FORWARDING:
        scene.drop(1, reason, 2)
    assert scene.received.total(BR0) == tally(4)


def test_a_bridge_that_is_made_anew_begins_anew() -> None:
    scene = Scene()
    scene.comes(1, 3)
    scene.received.follow(BR0, {A: 1, B: 2})
    scene.received.follow(BR0, {B: 2})
    scene.received.forget(BR0)
    assert scene.received.follow(BR0, {B: 2}) == NO_FRAMES
