# SPDX-License-Identifier: Apache-2.0
"""The same flows and frames for a model and any number of switches, and what differs.

The model (tests/oracle/flow_pipeline.py) reads the flows out of the first switch, so that what
ovs-ofctl made of a line is what all of them have.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from random import Random

from tests.oracle.flow_pipeline import Outcome, Pipeline, TooDeepError
from tests.oracle.flow_pipeline_cases import Cases
from tests.oracle.flow_pipeline_frames import Frames
from tools.lab.flows import PORTS, Side

from heliograph.openflow.actions import GotoTable, Port
from heliograph.openflow.codec import Frame as CodecFrame
from heliograph.openflow.codec import decode, encode
from heliograph.openflow.flows import FlowStats, PacketOut
from heliograph.openflow.match import ANYTHING, Match
from heliograph.openflow.messages import Version

Arrived = dict[int, list[bytes]]
NAMES = {Version.V10: "OpenFlow10", Version.V15: "OpenFlow15"}


def arrivals(outcome: Outcome) -> Arrived:
    arrived: Arrived = {number: [] for number in PORTS}
    for sent in outcome.sent:
        arrived[sent.port].append(sent.data)
    return arrived


def expected(pipeline: Pipeline, in_port: int, frames: Iterable[bytes]) -> Arrived:
    wanted: Arrived = {number: [] for number in PORTS}
    for frame in frames:
        for number, data in arrivals(pipeline.run(frame, in_port)).items():
            wanted[number] += data
    return wanted


def differs(told: str, outcome: Outcome, wanted: Arrived, found: Arrived) -> str:
    lines = [told, *(f"  hit {table} {flow}" for table, flow in outcome.hits)]
    for number in PORTS:
        if wanted[number] != found[number]:
            lines.append(f"  {number} wanted {[data.hex() for data in wanted[number]]}")
            lines.append(f"  {number} found  {[data.hex() for data in found[number]]}")
    return "\n".join(lines)


def possible(pipeline: Pipeline, in_port: int, frames: Iterable[bytes]) -> list[bytes]:
    """Those that do not go round in the tables: where they end is not modelled."""
    able = []
    for frame in frames:
        try:
            pipeline.run(frame, in_port)
        except TooDeepError:
            continue
        able.append(frame)
    return able


class Beside:
    """`sides`: the first one is the one whose flows are read."""

    def __init__(self, *sides: Side) -> None:
        self.sides = sides
        self.vlan_limit = 1
        self.refused: Counter[tuple[str, str]] = Counter()  # side and error

    def load(
        self, flows: Sequence[str], groups: Sequence[str] = (), version: Version = Version.V15
    ) -> Pipeline:
        """The lines as ovs-ofctl takes them, on all."""
        for side in self.sides:
            side.install(flows, groups, NAMES[version])
        return self._pipeline(version)

    def change(self, cases: Cases, version: Version) -> Pipeline:
        """Random flows; what one switch refuses, none has."""
        mods = cases.mods()
        for side in self.sides:
            said = side.change(mods, version)
            self.refused.update((side.name, error) for error in said if error)
            mods = [mod for mod, error in zip(mods, said, strict=True) if not error]
        for side in self.sides[:-1]:
            assert not any(side.change(mods, version)), side.name
        return self._pipeline(version)

    def _pipeline(self, version: Version) -> Pipeline:
        flows, groups = self.sides[0].there(version)
        for side in self.sides[1:]:
            also, others = side.there(version)
            assert _plain(also) == _plain(flows), side.name
            assert {g.group_id: g for g in others} == {g.group_id: g for g in groups}, side.name
        return Pipeline(flows, PORTS, groups, vlan_limit=self.vlan_limit)

    def parse_tags(self, limit: int) -> None:
        for side in self.sides:
            side.tools.vsctl(f"set open . other_config:vlan-limit={limit}")
            side.settle()
        self.vlan_limit = limit

    def differences(
        self, pipeline: Pipeline, in_port: int, frames: Sequence[bytes]
    ) -> Iterator[str]:
        """Many at once; where more or others arrive, one by one, to say which and in what order."""
        frames = possible(pipeline, in_port, frames)
        wanted = expected(pipeline, in_port, frames)
        for side in self.sides:
            found = side.send(in_port, frames)
            if any(Counter(found[number]) != Counter(wanted[number]) for number in PORTS):
                said = 0
                for frame in frames:
                    for text in self._one(side, pipeline, in_port, frame):
                        said += 1
                        yield text
                if not said:
                    yield f"{side.name}: port {in_port}, only all frames together"

    def in_order(self, pipeline: Pipeline, in_port: int, frames: Iterable[bytes]) -> Iterator[str]:
        """One by one, so that the order of what each port sends is seen."""
        for frame in possible(pipeline, in_port, frames):
            for side in self.sides:
                yield from self._one(side, pipeline, in_port, frame)

    def random_packet_outs(self, seed: str, count: int) -> Iterator[str]:
        """Frames that a controller sends, as if from some port or from none."""
        random = Random(seed)
        cases = Cases(random)
        pipeline, frames = self.change(cases, Version.V15), Frames(random, stock=True)
        for _ in range(count):
            data, port = frames.frame(), random.choice([*PORTS, Port.NONE, Port.CONTROLLER])
            actions = tuple(x for x in cases.actions(ANYTHING, 0) if not isinstance(x, GotoTable))
            message = PacketOut(actions=actions, data=data, in_port=port)
            encoded = encode(message, Version.V15)
            received = decode(CodecFrame(Version.V15, encoded[1], 0, encoded))
            assert isinstance(received, PacketOut)
            try:
                outcome = pipeline.packet_out(data, port, received.actions)
            except TooDeepError:
                continue
            wanted = arrivals(outcome)
            for side in self.sides:
                error, found = side.packet_out(message, Version.V15)
                self.refused[side.name, error] += 1
                if error:
                    break
                if found != wanted:
                    told = f"{side.name}: {data.hex()} by port {port}, {actions}"
                    yield differs(told, outcome, wanted, found)

    def _one(self, side: Side, pipeline: Pipeline, in_port: int, frame: bytes) -> Iterator[str]:
        outcome = pipeline.run(frame, in_port)
        wanted, found = arrivals(outcome), side.send(in_port, [frame])
        if wanted != found:
            told = f"{side.name}: {frame.hex()} by port {in_port}"
            yield differs(told, outcome, wanted, found)

    def random(self, seed: str, number: int, count: int) -> Iterator[str]:
        """A table, and so many frames by each port; the first differences. Without NORMAL, and
        without a third tag, where two are looked at: Open vSwitch loses one or not."""
        random = Random(f"{seed}/{number}")
        strict = number % 2 == 0
        cases = Cases(random, strict=strict, cuts=number % 5 == 0)
        cases.pushes = self.vlan_limit == 1
        cases.normal = number % 3 > 0 and cases.pushes
        pipeline = self.change(cases, Version.V15 if strict else Version.V10)
        frames = Frames(random, stock=True)
        for in_port in PORTS:
            batch = [frames.frame() for _ in range(count)]
            yield from self.differences(pipeline, in_port, batch)
        yield from self.in_order(pipeline, 1, batch[:3])


def _plain(flows: Iterable[FlowStats]) -> dict[object, object]:
    """Without what changes by itself. Open vSwitch tells 1.5 of no priority of a tag that is not
    there, whatever it was told."""
    return {
        (flow.table_id, flow.priority, _match(flow.match)): (flow.cookie, flow.actions)
        for flow in flows
    }


def _match(match: Match) -> Match:
    fields = {name: (value, mask) for name, value, mask in match}
    if fields.get("vlan_tci") == (0, 0xFFFF):
        fields["vlan_tci"] = 0, 0x1FFF
    return Match.of(fields)
