# SPDX-License-Identifier: Apache-2.0
"""What many MAC addresses cost two hosts that are known: 100,000 at rest, a million in a flood."""

import statistics
import struct
from collections.abc import Callable
from dataclasses import dataclass

from tools.lab.lab import Lab

from bench.rigs import UNMIRRORED, Build, OvsRig, Rig, bridge, heliograph
from bench.sending import Frames, on_cpu
from bench.storm import begin
from bench.traffic import small_frames, udp_frame

LEARNED = 100_000
FLOOD = 1_000_000  # frames of a flood, each from another MAC
PATIENCE = 20.0  # seconds after which a flood ends by itself
LARGE = 1_000_000  # other_config:mac-table-size
CPU = 0  # of the known hosts; the flood has the other

Add = Callable[[str, str, float], None]  # to a report: what, on whom, the sample


PAIR = "60-byte frames between a known pair, frames/s"
CYCLE = "60-byte frames, each to another learned MAC, frames/s"


def set_table_size(rig: Rig, size: int) -> None:
    """Bound the table of one that ovs-vsctl configures; the Linux bridge's has no bound."""
    if isinstance(rig, OvsRig):
        rig.tools.vsctl(f"set bridge br0 other_config:mac-table-size={size}")


def _teach(rig: Rig, macs: list[bytes]) -> None:
    """Have MACs learned behind the second guest, by frames that go nowhere."""
    guest = rig.guests[1]
    target, rest = guest.mac(), b"\x88\xb6" + bytes(46)
    with guest.namespace.packet_socket(guest.device, 0) as out:
        Frames([target + mac + rest for mac in macs]).send_once(out)


class ManyMacs:
    """Two bridges of each kind, one of which has learned 100,000 MACs behind its second guest."""

    def __init__(self, lab: Lab) -> None:
        self._rigs: list[tuple[str, Rig, Frames]] = []
        for build in bridge, heliograph:
            for count in 1, LEARNED:
                rig = build(lab, UNMIRRORED)
                name = f"{rig}, {count + 2:,} MACs"
                self._rigs.append((name, rig, self._prepare(rig, count)))

    def _prepare(self, rig: Rig, count: int) -> Frames:
        """Teach; the frames to all of them. Few frames lie in memory as often as many do, so that
        senders differ in nothing but the destinations."""
        set_table_size(rig, LARGE)
        macs = [struct.pack("!HI", 0x0264, number) for number in range(count)]
        _teach(rig, macs)
        rest = udp_frame(*rig.guests[:2])[6:]
        return Frames([mac + rest for mac in macs] * (LEARNED // count))

    def turn(self, add: Add, seconds: float) -> None:
        """Raises RuntimeError if a MAC that was learned is not known."""
        for name, rig, frames in self._rigs:
            with on_cpu(CPU):
                add(PAIR, name, small_frames(rig, seconds).per_second)
                bystander = rig.guests[2].received()
                burst = small_frames(rig, seconds, frames)
            if rig.guests[2].received() > bystander + 100:  # it hears what guests say unasked
                raise RuntimeError(f"{name}: frames to learned MACs were flooded")
            add(CYCLE, name, burst.per_second)


@dataclass(frozen=True)
class Beside:
    """How two known hosts fared while a third sent a million frames on the other CPU."""

    kept: float  # share of the frames/s that they have alone
    kept_cpu: float  # the same per second on the CPU: what else the machine does is left out
    lost: float  # share of what they sent meanwhile
    astray: int  # frames of theirs that a bystander got
    storm: float  # frames/s of the third


def _beside(lab: Lab, rig: Rig, seconds: float, *, random_sources: bool) -> Beside:
    bystander = rig.guests[2]
    with on_cpu(CPU):
        alone = [small_frames(rig, seconds / 2)]
    before = bystander.received()
    storm = begin(lab, bystander, FLOOD, random_sources=random_sources, seconds=PATIENCE)
    with on_cpu(CPU):
        meanwhile = small_frames(rig, seconds)
    if not storm.process.running:
        raise RuntimeError(f"{rig}: the storm ended before the measurement")
    astray = bystander.received() - before
    rate = storm.wait()
    with on_cpu(CPU):
        alone.append(small_frames(rig, seconds / 2))
    kept = meanwhile.per_second / statistics.mean(burst.per_second for burst in alone)
    cpu = meanwhile.per_cpu_second / statistics.mean(burst.per_cpu_second for burst in alone)
    return Beside(kept, cpu, meanwhile.lost, astray, rate)


FLOODED: list[tuple[Build, int]] = [(bridge, 0), (heliograph, 0), (heliograph, LARGE)]


def flood(add: Add, seconds: float) -> None:
    """One turn: fresh bridges, first beside as many frames of one MAC, then beside a flood."""
    for build, size in FLOODED:
        with Lab() as lab:
            rig = build(lab, UNMIRRORED)
            name = str(rig)
            if size:
                set_table_size(rig, size)
                name = f"{rig}, mac-table-size={size:,}"
            for random_sources in False, True:
                beside = _beside(lab, rig, seconds, random_sources=random_sources)
                what = "a million MACs" if random_sources else "one MAC as often"
                case = f"{name}, {what}"
                add("known hosts beside a storm, share of frames/s kept", case, beside.kept)
                add("the same per second of CPU time, share kept", case, beside.kept_cpu)
                add("known hosts beside a storm, % of frames lost", case, beside.lost * 100)
                add("known hosts beside a storm, frames to a bystander", case, beside.astray)
                add("the storm, frames/s", case, beside.storm)
