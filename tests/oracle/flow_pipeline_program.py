# SPDX-License-Identifier: Apache-2.0
"""Flow tables in the loaded data plane by way of our own classifier, compiler and store, and what
the recording entry point says they do with a frame, beside the model."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from tests.oracle import cases
from tests.oracle.flow_pipeline import Outcome, Pipeline, TooDeepError
from tests.oracle.flow_pipeline_cases import Cases
from tests.oracle.flow_pipeline_frames import Frames
from tests.oracle.flow_pipeline_mirrors import FlowWalk, by_number, no_flood, reserved
from tests.oracle.program import expected, recorded

from heliograph.errors import HeliographError
from heliograph.flows.tables import FailedAt, Tables
from heliograph.kernel import recorder
from heliograph.kernel.dataplane import DataPlane
from heliograph.kernel.flow_store import FlowStore
from heliograph.kernel.flow_store_maps import KernelBacking
from heliograph.kernel.layouts import EventKind, Limits, PortFlags, Reason, VlanMode
from heliograph.kernel.recorder import Event
from heliograph.kernel.snapshot import BridgeEntry, MirrorEntry, PortEntry
from heliograph.openflow.actions import Port
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod
from heliograph.openflow.messages import Version

SLOT = 5
# The switch's numbers of ports by ofport, so that none is taken for the other.
NUMBERS = {1: 31, 2: 17, 3: 4, 4: 2, int(Port.LOCAL): 40}
OFPORTS = {number: ofport for ofport, number in NUMBERS.items()}
Images = list[tuple[int, int, str]]  # ofport, length, the first bytes in hex


def port(ofport: int, mode: VlanMode = VlanMode.TRUNK, tag: int = 0, **more: Any) -> PortEntry:
    """`more` are fields of PortEntry."""
    number = NUMBERS[ofport]
    known: dict[str, Any] = {
        "number": number,
        "ifindex": 1000 + number,
        "mode": mode,
        "tag": tag,
        "trunks": frozenset(),
        "generation": number,
        "ofport": ofport,
    }
    return PortEntry(**known | more)


def bridge(*mirrors: MirrorEntry, ports: Iterable[PortEntry] = (), **more: Any) -> BridgeEntry:
    """`ports`: those that are other than trunks of all VLANs; `more` are fields of BridgeEntry."""
    entries = {ofport: port(ofport) for ofport in NUMBERS} | {p.ofport: p for p in ports}
    known: dict[str, Any] = {
        "slot": SLOT,
        "forwarding": True,
        "forward_bpdu": False,
        "mac_age": 300,
        "mac_limit": 8192,
        "ports": tuple(entries.values()),
        "mirrors": mirrors,
        "flows": True,
    }
    return BridgeEntry(**known | more)


def random_bridge(random: Random) -> BridgeEntry:
    """With ports of all modes and mirrors."""
    (made,) = cases.configuration(random, ([list(OFPORTS)], {})).bridges
    configs = [0, 0, 0, 0, *(PortFlags(1 << n) for n in (4, 5, 6))]
    return replace(
        made,
        slot=SLOT,
        forwarding=True,
        flows=True,
        mirror_changed=random.random() < 0.5,
        ports=tuple(
            replace(p, ofport=OFPORTS[p.number], config=random.choice(configs)) for p in made.ports
        ),
        mirrors=tuple(replace(m, slot=SLOT * Limits.MAX_MIRRORS + m.number) for m in made.mirrors),
    )


@dataclass
class FlowProgram:
    """One bridge, whose ports are `NUMBERS`, on the loaded data plane."""

    plane: DataPlane
    slot: int = SLOT
    down: Collection[int] = ()  # ofports, for fast failover
    tables: Tables = field(default_factory=Tables)
    refused: list[str] = field(default_factory=list)
    bridge: BridgeEntry = field(init=False)
    _store: FlowStore | None = None

    def start(self, entry: BridgeEntry | None = None) -> None:
        """Empty tables."""
        self.bridge = entry or bridge()
        self.tables, self.refused = Tables(), []
        self._fill()
        self.plane.switch_over(self.bridge)

    def _fill(self) -> None:
        old, backing = self._store, KernelBacking(self.plane.map_fd("flow_stores"), 2 * self.slot)
        self._store = FlowStore(backing, lambda ofport: ofport in NUMBERS.keys() - set(self.down))
        self._store.load(self.tables)
        if old is not None:
            old.close()

    def close(self) -> None:
        self.plane.clear_bridge(self.slot)
        if self._store is not None:
            self._store.close()
            self._store = None

    @property
    def store(self) -> FlowStore:
        assert self._store is not None, "not started"
        return self._store

    def change(self, mods: Iterable[FlowMod | GroupMod], version: int = Version.V15) -> None:
        """One after the other; what is refused is left out and noted."""
        for mod in mods:
            try:
                self.step([mod], version)
            except OpenFlowError as error:
                self.refused.append(error.code.name)

    def step(self, mods: Iterable[FlowMod | GroupMod], version: int = Version.V15) -> None:
        """All at once; raises OpenFlowError, and nothing has changed."""
        try:
            change = self.tables.change_all(tuple(mods), 0, version)
        except FailedAt as failed:
            raise failed.error from failed
        try:
            self.store.apply(change.delta)
        except BaseException:
            self.tables.undo(change)
            raise

    def pipeline(self, *, normal: bool = True) -> Pipeline:
        """The model with the same flows; `normal`: it does that itself, as of trunks."""
        return Pipeline(
            self.tables.flows.values(),
            by_number(self.bridge),
            [entry.desc for entry in self.tables.groups.values()],
            no_flood=no_flood(self.bridge),
            reserved=reserved(self.bridge),
            down=self.down,
            normal=normal,
            vlan_limit=self.bridge.vlan_limit,
        )

    def mirrored(self, in_port: int, frame: bytes) -> str | None:
        """As `difference`, with the copies of mirrors, what they select, drops and NORMAL."""
        events = self.events(in_port, frame)
        if events is None:
            return None
        found, number = recorded(events), NUMBERS[in_port]
        pipeline = self.pipeline(normal=False)
        try:
            outcomes = [
                expected(FlowWalk(self.bridge, pipeline, choice).arrive(number, frame))
                for choice in range(pipeline.choices)
            ]
        except TooDeepError:
            return None
        return "" if found in outcomes else _told_apart(outcomes[0], found)

    def events(self, in_port: int, frame: bytes) -> list[Event] | None:
        """What the program decides; None when that is more than a record holds, or the kernel
        refuses to run a frame without payload, or IPv4 without its header."""
        if len(frame) < 15 or (frame[12:14] == b"\x08\0" and len(frame) < 34):
            return None
        program, records = self.plane.program_fd("recorder"), self.plane.map_fd("records")
        try:
            return recorder.record(program, records, frame, bridge=self.slot, port=NUMBERS[in_port])
        except (HeliographError, OSError):
            return None

    def difference(self, pipeline: Pipeline, in_port: int, frame: bytes) -> str | None:
        """What model and program do differently. Empty: nothing. None: it cannot be compared."""
        events = self.events(in_port, frame)
        if events is None:
            return None
        try:
            wanted = [pipeline.run(frame, in_port, choice) for choice in range(pipeline.choices)]
        except TooDeepError:
            return None
        found = self._found(events)
        outcomes = [self._wanted(outcome) for outcome in wanted]
        if found in outcomes:
            return ""
        return _told_apart(outcomes[0], found)

    def _wanted(self, outcome: Outcome) -> dict[str, object]:
        hits = [(table, getattr(flow, "id", None)) for table, flow in outcome.hits]
        images: Images = [
            (sent.port, len(sent.data), sent.data[: Limits.IMAGE_BYTES].hex())
            for sent in outcome.sent
        ]
        return {"flows": hits, "sent": images}

    def _found(self, events: list[Event]) -> dict[str, object]:
        return {
            "flows": [
                (e.table, None if e.rule is None else self.store.rule_at(e.rule))
                for e in events
                if e.kind == EventKind.EVENT_FLOW
            ],
            "sent": images(events),
        }


def images(events: Iterable[Event], mirror: int | None = None) -> Images:
    """What leaves, by ofport; `mirror`: its copies, None: what is no copy."""
    return [
        (OFPORTS[event.port], event.length, event.image[: Limits.IMAGE_BYTES].hex())
        for event in events
        if event.kind == EventKind.EVENT_OUTPUT
        and event.reason == Reason.DELIVERED
        and event.mirror == mirror
    ]


def run_random(
    program: FlowProgram, seed: str, count: int, *, chosen: bool = False, vlan_limit: int = 1
) -> tuple[int, str]:
    """Random tables and so many frames: how many were compared, and the first difference."""
    random = Random(seed)
    strict = random.random() < 0.5
    made = Cases(random, strict=strict, cuts=random.random() < 0.3, chosen=chosen)
    made.normal = made.normal and random.random() < 0.5 and vlan_limit == 1
    program.start(bridge(vlan_limit=vlan_limit))
    program.change(made.mods(), Version.V15 if strict else Version.V10)
    return _compare(program, random, count, mirrored=False)


def run_random_mirrored(program: FlowProgram, seed: str, count: int) -> tuple[int, str]:
    """The same with ports of all modes, and mirrors."""
    random = Random(seed)
    strict = random.random() < 0.5
    program.start(random_bridge(random))
    mods = Cases(random, strict=strict, cuts=random.random() < 0.3).mods(12)
    program.change(mods, Version.V15 if strict else Version.V10)
    return _compare(program, random, count, mirrored=True)


def _compare(
    program: FlowProgram, random: Random, count: int, *, mirrored: bool
) -> tuple[int, str]:
    # Of two tags that are parsed, one changed, the other loses that bit.
    frames = Frames(random, drop_eligible=program.bridge.vlan_limit == 1)
    pipeline, compared = program.pipeline(), 0
    for _ in range(count):
        in_port, frame = random.choice(list(NUMBERS)), frames.frame()
        if mirrored:
            said = program.mirrored(in_port, frame)
        else:
            said = program.difference(pipeline, in_port, frame)
        if said:
            hits = [f"{table}: {flow}" for table, flow in pipeline.run(frame, in_port).hits]
            return compared, "\n".join([f"port {in_port}, frame {frame.hex()}", *hits, said])
        compared += said is not None
    return compared, ""


def _told_apart(model: Mapping[str, object], program: Mapping[str, object]) -> str:
    return "".join(
        f"{what}:\n  model   {model[what]}\n  program {program[what]}\n"
        for what in program
        if model[what] != program[what]
    )
