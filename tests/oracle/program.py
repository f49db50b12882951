# SPDX-License-Identifier: Apache-2.0
"""The same cases through the loaded program's recording entry point, and the comparison."""

from collections.abc import Collection
from dataclasses import dataclass, field

from tests.oracle.cases import Configuration
from tests.oracle.model import Verdict, Walk

from heliograph.errors import HeliographError
from heliograph.kernel import bpf, layouts, recorder
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.fdb import now_tick
from heliograph.kernel.layouts import EventKind, Limits, Reason
from heliograph.kernel.recorder import Event
from heliograph.kernel.snapshot import mac_age_ticks


@dataclass(frozen=True, slots=True)
class Program:
    """The loaded data plane. `used`: the bridge slots that hold a configuration."""

    plane: DataPlane
    used: set[int] = field(default_factory=set)

    def configure(self, config: Configuration) -> None:
        """Put a configuration in force, with exactly its MAC table."""
        self.clear(keep={bridge.slot for bridge in config.bridges})
        for bridge in config.bridges:
            self.plane.switch_over(bridge)
            self.used.add(bridge.slot)
        table = self.plane.map_fd("fdb")
        ages = {bridge.slot: mac_age_ticks(bridge) for bridge in config.bridges}
        for entry in config.entries:
            key = layouts.FdbKey(entry.mac, entry.vlan, entry.slot)
            age = ages[entry.slot] + 2 if entry.too_old else 0
            generation = entry.port + 1 if entry.changed else entry.port
            seen = (now_tick() - age) & 0xFFFFFFFF
            value = layouts.FdbValue(entry.port, generation, seen, place=0, moved=0, moves=0)
            bpf.update(table, key.pack(), value.pack())

    def clear(self, keep: Collection[int] = ()) -> None:
        """Leave no bridge, but those that are configured anew at once, and no MAC table."""
        for slot in self.used - set(keep):
            self.plane.clear_bridge(slot)
            self.used.remove(slot)
        table = self.plane.map_fd("fdb")
        sizes = layouts.FDB_KEY.size, layouts.FDB_VALUE.size
        bpf.delete_batch(table, [key for key, _ in bpf.items(table, *sizes)])

    def events(self, slot: int, port: int, frame: bytes) -> list[Event] | None:
        """What the program decides; None when that is more than a record holds.

        The kernel refuses to test-run a frame without payload, and IPv4 without its header: then
        None as well.
        """
        if len(frame) < 15 or (frame[12:14] == b"\x08\x00" and len(frame) < 34):
            return None
        program, records = self.plane.program_fd("recorder"), self.plane.map_fd("records")
        try:
            return recorder.record(program, records, frame, bridge=slot, port=port)
        except HeliographError:
            return None


def expected(verdict: Verdict) -> dict[str, list[tuple[object, ...]]]:
    return {
        "sent": [
            (s.port, s.mirror, s.reason.name, *_image(s.reason, len(s.image), s.image))
            for s in verdict.sent
        ],
        "taken": [(t.mirror, t.vlan) for t in verdict.taken],
        "drops": sorted((port, reason.name) for port, reason in verdict.drops),
        "learned": list(verdict.learned),
    }


def recorded(events: list[Event]) -> dict[str, list[tuple[object, ...]]]:
    """Events as `expected` gives them."""
    found: dict[str, list[tuple[object, ...]]] = {
        "sent": [],
        "taken": [],
        "drops": [],
        "learned": [],
    }
    for event in events:
        if event.kind == EventKind.EVENT_OUTPUT:
            image = _image(event.reason, event.length, event.image)
            found["sent"].append((event.port, event.mirror, event.reason.name, *image))
        elif event.kind == EventKind.EVENT_MIRROR:
            found["taken"].append((event.mirror, event.vlan))
        elif event.kind == EventKind.EVENT_DROP:
            found["drops"].append((event.port, event.reason.name))
        elif event.kind == EventKind.EVENT_LEARN:
            found["learned"].append((event.port, event.vlan))
    found["drops"].sort()
    return found


def _image(reason: Reason, length: int, image: bytes) -> tuple[int, str]:
    """What does not leave has no image."""
    return (0, "") if reason != Reason.DELIVERED else (length, image[: Limits.IMAGE_BYTES].hex())


def difference(program: Program, config: Configuration, case: tuple[int, int, bytes]) -> str | None:
    """What model and program do differently with a frame (bridge slot, port, bytes).

    Empty: nothing. None: the frame cannot be compared.
    """
    events = program.events(*case)
    if events is None:
        return None
    slot, port, frame = case
    wanted = expected(Walk(config.bridges, config.learned()).receive(slot, port, frame))
    found = recorded(events)
    return "".join(
        f"{what}:\n  model   {wanted[what]}\n  program {found[what]}\n"
        for what in wanted
        if wanted[what] != found[what]
    )
