# SPDX-License-Identifier: Apache-2.0
"""Counters of the flow that frames go past: through turns, other flows, and the next process."""

from collections.abc import Callable

import pytest
from tests.unit.control.fakes import BRIDGE, Plane, Switch

from heliograph.control.bypass import Bypass
from heliograph.control.wanted import NO_FRAMES, Tally
from heliograph.flows.flow import Usage
from heliograph.flows.records import NOTHING, Besides


class Scene:
    """Flow 1, and what came in by ports."""

    def __init__(self) -> None:
        self.plane, self.came = Plane(), NO_FRAMES
        self.bypass = Bypass(self.plane, lambda: self.came)

    def comes(self, packets: int) -> None:
        self.came = self.came.plus(Tally(packets, 100 * packets))

    def hits(self, flow: int, packets: int) -> None:
        """Frames come and meet a flow."""
        self.comes(packets)
        before = self.plane.usage(flow)
        counted = Usage(before.packets + packets, before.bytes + 100 * packets, 7)
        self.plane.usages[flow] = counted

    async def turn(self, alone: int | None, *meanwhile: Callable[[], None]) -> None:
        async def switch() -> None:
            for deed in meanwhile:
                deed()

        await self.bypass.turn(alone, switch)

    def packets(self, flow: int = 1) -> int:
        self.bypass.look(5)
        usage = self.bypass.usage(flow)
        assert usage.bytes == 100 * usage.packets
        return usage.packets


@pytest.fixture
def scene() -> Scene:
    made = Scene()
    made.comes(1000)
    made.bypass.start(NOTHING, 1)
    return made


async def test_what_comes_in_counts_while_the_flow_is_alone(scene: Scene) -> None:
    assert scene.packets() == 0
    scene.comes(3)
    assert scene.packets() == 3
    await scene.turn(None, lambda: scene.comes(2), lambda: scene.hits(1, 4))
    assert scene.packets() == 9
    scene.hits(1, 1)
    scene.hits(2, 10)
    assert (scene.packets(), scene.packets(2)) == (10, 10)
    await scene.turn(1, lambda: scene.hits(1, 4), lambda: scene.comes(2))
    assert scene.packets() == 16
    scene.comes(1)
    assert (scene.packets(), scene.packets(2)) == (17, 10)


async def test_a_turn_that_fails_changes_nothing(scene: Scene) -> None:
    def fail() -> None:
        raise OSError

    scene.comes(3)
    with pytest.raises(OSError):
        await scene.turn(None, fail)
    scene.comes(3)
    assert scene.packets() == 6
    await scene.turn(None)
    with pytest.raises(OSError):
        await scene.turn(1, fail)
    scene.comes(3)
    assert scene.packets() == 6


def test_another_flow_in_its_place_counts_from_then_on(scene: Scene) -> None:
    scene.comes(3)
    assert not scene.bypass.follow(1)
    assert scene.bypass.follow(2)
    scene.comes(4)
    assert (scene.packets(), scene.packets(2)) == (0, 4)


def test_when_it_was_used_last(scene: Scene) -> None:
    scene.bypass.look(10)
    assert scene.bypass.usage(1).last_used == 0
    scene.comes(1)
    scene.bypass.look(20)
    scene.bypass.look(30)
    assert scene.bypass.usage(1).last_used == 20


def test_bytes_that_are_an_estimate_never_become_less(scene: Scene) -> None:
    scene.came = scene.came.plus(Tally(0, 600))
    scene.bypass.look(1)
    scene.came = scene.came.minus(Tally(0, 300))
    scene.bypass.look(1)
    assert scene.bypass.usage(1) == Usage(0, 600, 0)


@pytest.mark.parametrize("alone", [1, None])
async def test_the_next_process_goes_on(scene: Scene, alone: int | None) -> None:
    """It may end between a change of the flows and the note of it: `alone` is what holds then."""
    for on in (True, False):
        scene.comes(5)
        departed = Tally(700, 70_000)  # of ports that the next one does not know
        kept = scene.bypass.besides(departed)
        assert kept.on == on
        later, counted = Scene(), scene.packets()
        later.plane.usages = dict(scene.plane.usages)
        later.came = scene.came.minus(departed)
        if on:
            later.comes(3)  # while there was none
            counted += 3
        later.bypass.start(kept, alone)
        assert later.packets() == counted
        later.comes(2)
        assert later.packets() == counted + 2 * (alone == 1)
        await scene.turn(None)


def test_what_is_kept_of_another_flow_is_not_its(scene: Scene) -> None:
    scene.bypass.start(Besides(9, 50, 5000, True), 1)
    assert scene.packets() == 0
    assert scene.packets(9) == 0


async def test_of_a_bridge(switch: Switch) -> None:
    """Every way of asking for counters takes a look; what is kept is kept at each turn."""
    await switch.configure(fail_mode="standalone")
    switch.agent.came = Tally(4, 400)
    assert "n_packets=4, n_bytes=400, idle_age=0" in await switch.ofctl(1, "dump-flows")
    switch.agent.came = Tally(5, 500)
    assert "packet_count=5 byte_count=500" in await switch.ofctl(1, "dump-aggregate")
    switch.agent.came = Tally(6, 600)
    assert "lookup=11, matched=6" in await switch.ofctl(4, "dump-tables")  # and 5 misses
    await switch.ofctl(1, "add-flow", "priority=0,actions=NORMAL")  # a new one
    assert "n_packets=0," in await switch.ofctl(1, "dump-flows")
    switch.agent.came = Tally(8, 800)
    await switch.ofctl(1, "add-flow", "in_port=1,actions=drop")
    await switch.service.close()
    again = Switch(switch.rundir, keep=True)
    again.wanted = switch.wanted
    await again.begin()
    assert again.service.needs_tables(BRIDGE)
    assert "n_packets=2, n_bytes=200," in await again.ofctl(1, "dump-flows")
    await again.ofctl(1, "del-flows", "in_port=1")
    again.agent.came = Tally(1, 100)
    await again.configure(departed=Tally(1, 100))  # its only port has gone
    await again.service.close()
    third = Switch(switch.rundir, keep=True)
    third.wanted = again.wanted
    await third.begin()
    assert "n_packets=3, n_bytes=300," in await third.ofctl(1, "dump-flows")
    await third.service.close()
