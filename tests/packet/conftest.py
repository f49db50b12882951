# SPDX-License-Identifier: Apache-2.0
"""The loaded program, its recording entry point, and rows to run through it.

A row: a bridge of named ports and mirrors, a frame in by a port, and what leaves by which port.
Nothing is attached and no device exists, so this says nothing of the egress program: the system
tests do.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from tools.lab.lab import Lab, sweep

from heliograph.kernel import bpf, bpffs, layouts, recorder
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.fdb import now_tick
from heliograph.kernel.layouts import EventKind, Reason, VlanMode
from heliograph.kernel.recorder import Event
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry

BRIDGE, OTHER_BRIDGE = 3, 4  # any slots; not 0, so that a forgotten slot shows
SEGMENTER = 900  # ifindex of its near end


@dataclass(frozen=True)
class Output:
    """One frame that leaves: by which port, whose copy (None: itself), its bytes in hex."""

    port: str
    mirror: int | None
    image: str


@dataclass
class Switch:
    """A bridge on the loaded program; ports by name, numbered from 1 in the order given.

    Bridges that share `numbers` know each other's ports by name.
    """

    plane: DataPlane
    slot: int = BRIDGE
    numbers: dict[str, int] = field(default_factory=dict)
    entries: dict[str, PortEntry] = field(default_factory=dict)

    def port(
        self,
        name: str,
        mode: VlanMode = VlanMode.TRUNK,
        tag: int = 0,
        trunks: Sequence[int] = (),
        *,
        device: bool = True,
        **more: Any,
    ) -> None:
        """Add a port; `more` are fields of PortEntry."""
        number = self.numbers.setdefault(name, len(self.numbers) + 1)
        self.entries[name] = PortEntry(
            number=number,
            ofport=number,
            ifindex=1000 + number if device else 0,
            mode=mode,
            tag=tag,
            trunks=frozenset(trunks),
            generation=number,
            **more,
        )

    def tunnel(self, name: str, mode: VlanMode = VlanMode.TRUNK, tag: int = 0, **more: Any) -> None:
        """Add a tunnel port."""
        self.port(name, mode, tag, tunnel=True, **more)
        self.entries[name] = replace(self.entries[name], ifindex=SEGMENTER)

    def patch(self, name: str, other: "Switch", peer: str, **more: Any) -> None:
        """Add a patch port to this bridge and its peer to the other; `more` is for both."""
        here, there = (self.numbers.setdefault(n, len(self.numbers) + 1) for n in (name, peer))
        self.port(name, device=False, peer=(other.slot, there), **more)
        other.port(peer, device=False, peer=(self.slot, here), **more)

    def mirror(
        self,
        number: int,
        output: str | None,
        *,
        src: Sequence[str] = (),
        dst: Sequence[str] = (),
        vlans: Sequence[int] = (),
        snaplen: int = 0,
        output_vlan: int = 0,
    ) -> MirrorEntry:
        """A mirror to be given to `configure`; without `output` it has an `output_vlan`."""
        return MirrorEntry(
            number=number,
            slot=self.slot * 32 + number,
            sources=frozenset(self.numbers[name] for name in src),
            destinations=frozenset(self.numbers[name] for name in dst),
            vlans=frozenset(vlans),
            output_port=None if output is None else self.numbers[output],
            snaplen=snaplen,
            output_vlan=output_vlan,
        )

    def configure(
        self,
        *mirrors: MirrorEntry,
        forwarding: bool = True,
        forward_bpdu: bool = False,
        flood_vlans: Sequence[int] = (),
        vlan_limit: int = 1,
        flows: bool = False,
    ) -> None:
        """Put the ports and these mirrors in force."""
        self.plane.switch_over(
            BridgeEntry(
                slot=self.slot,
                forwarding=forwarding,
                forward_bpdu=forward_bpdu,
                mac_age=300,
                mac_limit=8192,
                ports=tuple(self.entries.values()),
                mirrors=mirrors,
                flood_vlans=frozenset(flood_vlans),
                vlan_limit=vlan_limit,
                segmenter=SEGMENTER,
                flows=flows,
            )
        )

    def learn(
        self, mac: str, port: str, vlan: int = 0, *, age: int = 0, generation: int | None = None
    ) -> None:
        """Have a MAC in the table, last seen `age` ticks ago."""
        key = layouts.FdbKey(bytes.fromhex(mac.replace(":", "")), vlan, self.slot)
        number = self.numbers[port]
        value = layouts.FdbValue(
            port=number,
            generation=number if generation is None else generation,
            seen=(now_tick() - age) % 2**32,
            place=0,
            moved=0,
            moves=0,
        )
        bpf.update(self.plane.map_fd("fdb"), key.pack(), value.pack())

    def events(self, frame: bytes, port: str) -> list[Event]:
        """Every decision about a frame coming in by a port."""
        return recorder.record(
            self.plane.program_fd("recorder"),
            self.plane.map_fd("records"),
            frame,
            bridge=self.slot,
            port=self.numbers[port],
        )

    def outputs(self, frame: bytes, port: str) -> list[Output]:
        """What leaves, in order; outputs that would be dropped are left out."""
        names = {number: name for name, number in self.numbers.items()}
        return [
            Output(names[event.port], event.mirror, event.image.hex())
            for event in self.events(frame, port)
            if event.kind == EventKind.EVENT_OUTPUT and event.reason == Reason.DELIVERED
        ]

    def ports(self, frame: bytes, port: str) -> list[tuple[str, int | None]]:
        """`outputs` without the images."""
        return [(output.port, output.mirror) for output in self.outputs(frame, port)]

    def dropped(self, frame: bytes, port: str) -> Reason | None:
        """Why the frame itself is dropped, or None."""
        drops = [e.reason for e in self.events(frame, port) if e.kind == EventKind.EVENT_DROP]
        return drops[0] if drops else None


def frame(
    *,
    dst: str = "02:00:00:00:00:02",
    src: str = "02:00:00:00:00:01",
    tag: str = "",
    length: int = 60,
) -> bytes:
    """An Ethernet frame of an experimental type; `tag` is TPID and TCI in hex."""
    head = bytes.fromhex((dst + src).replace(":", "") + tag + "88b5")
    return head + bytes(number % 256 for number in range(length - len(head)))


@pytest.fixture(scope="session")
def plane() -> Iterator[DataPlane]:
    """The data plane, loaded once below a bpffs of its own."""
    sweep()  # a run that was killed has left its own mounted
    with Lab() as lab:
        root = lab.path("bpf")
        bpffs.mount(root)
        try:
            loaded = DataPlane.open(root)
            try:
                yield loaded
            finally:
                loaded.close()
        finally:
            bpffs.unmount(root)


@pytest.fixture
def switch(plane: DataPlane) -> Iterator[Switch]:
    """A bridge of ports a, b, c: trunks of every VLAN; an empty MAC table."""
    made = Switch(plane)
    for name in "abc":
        made.port(name)
    yield made
    plane.clear_bridge(BRIDGE)
    plane.clear_bridge(OTHER_BRIDGE)
    table = plane.map_fd("fdb")
    keys = [key for key, _ in bpf.items(table, layouts.FDB_KEY.size, layouts.FDB_VALUE.size)]
    bpf.delete_batch(table, keys)


@pytest.fixture
def other(switch: Switch) -> Switch:
    """A second bridge, of ports x and y, that knows the first one's ports by name."""
    made = Switch(switch.plane, OTHER_BRIDGE, switch.numbers)
    for name in "xy":
        made.port(name)
    return made
