# SPDX-License-Identifier: Apache-2.0
"""Flow tables on real frames: a model, Open vSwitch's userspace datapath, and us, side by side."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from random import Random

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tests.oracle.flow_pipeline_frames import Frames
from tests.system.flow_beside import Beside
from tests.system.flow_tables_fixed import FIXED
from tools.lab.flows import NUMBERS, PORTS, Side, StockSide
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools

from heliograph.openflow.actions import Port
from heliograph.openflow.messages import Version

SEED = 20_261_121
TABLES, FRAMES = 30, 30
FIRST = 3  # differences to show


@pytest.fixture
def beside(lab: Lab, switch: Heliograph, ovs: Tools) -> Iterator[Beside]:
    sides = StockSide(lab), Side(lab, ovs, switch.host)
    yield Beside(*sides)
    for side in sides:
        side.close()


def test_each_action(beside: Beside) -> None:
    frames = Frames(Random(SEED), stock=True)
    batch = [frames.frame() for _ in range(40)]
    for name, (flows, groups) in FIXED.items():
        version = Version.V10 if name.startswith("1.0") else Version.V15
        pipeline = beside.load(flows, groups, version)
        outcomes = [pipeline.run(frame, 1) for frame in batch]
        assert any(outcome.sent for outcome in outcomes), f"{name}: nothing is sent"
        found = chain(
            beside.differences(pipeline, 1, batch), beside.in_order(pipeline, 1, batch[:10])
        )
        said = list(islice(found, FIRST))
        assert not said, "\n".join([name, *flows, *groups, *said])


def test_random_tables(beside: Beside) -> None:
    for number in range(TABLES):
        said = list(islice(beside.random(str(SEED), number, FRAMES), FIRST))
        assert not said, "\n".join([f"seed {SEED}, table {number}", *said])


def test_two_tags_are_looked_at(beside: Beside) -> None:
    beside.parse_tags(2)
    for number in range(TABLES // 3):
        said = list(islice(beside.random(f"{SEED}/two", number, FRAMES), FIRST))
        assert not said, "\n".join([f"seed {SEED}/two, table {number}", *said])


def test_random_packet_outs(beside: Beside) -> None:
    for number in range(8):
        said = list(islice(beside.random_packet_outs(f"{SEED}/{number}", 25), FIRST))
        assert not said, "\n".join([f"seed {SEED}, table {number}", *said])


def test_a_select_group_keeps_to_a_bucket_and_uses_all(beside: Beside) -> None:
    buckets = ",".join(f"bucket=weight:{n - 1},actions=output:{n}" for n in (1, 2, 3, 4))
    beside.load(["actions=group:1"], [f"group_id=1,type=select,{buckets}"])
    macs = {"dst": "02:00:00:00:00:02", "src": "02:00:00:00:00:01"}
    flows = [
        bytes(Ether(**macs) / IP(src="10.0.0.1", dst=f"10.0.1.{n}") / UDP(sport=n + 1) / bytes(9))
        for n in range(200)
    ]
    for side in beside.sides:
        once, again = (side.send(Port.LOCAL, flows) for _ in range(2))
        chosen = {number: Counter(once[number]) for number in PORTS}
        assert chosen == {number: Counter(again[number]) for number in PORTS}, side.name
        assert sum(chosen.values(), Counter()) == Counter(flows), side.name
        sizes = [chosen[number].total() for number in NUMBERS]
        assert sizes[0] == 0, side.name
        assert 10 < sizes[1] < sizes[3], (side.name, sizes)
        assert sizes[2] > 30, (side.name, sizes)


@pytest.mark.parametrize(
    ("fields", "ports"),
    [
        ("ip_dst", 1),
        ("ip_src=0.0.0.1", 2),
        ("tcp_src", 1),  # which UDP does not have
        ("ip_dst,udp_src", 3),
        ("eth_src,eth_type", 1),
    ],
)
def test_a_group_chooses_by_the_fields_that_it_names(
    beside: Beside, fields: str, ports: int
) -> None:
    buckets = ",".join(f"bucket=actions=output:{n}" for n in (1, 2, 3))
    group = f"group_id=1,type=select,selection_method=hash,fields({fields}),{buckets}"
    beside.load(["udp,actions=group:1"], [group])
    macs = Ether(dst="02:00:00:00:00:02", src="02:00:00:00:00:01")
    flows = [
        bytes(macs / IP(src=f"10.0.0.{n}", dst="10.0.1.1") / UDP(sport=n, dport=9) / bytes(9))
        for n in range(1, 201)
    ]
    for side in beside.sides:
        sent = side.send(Port.LOCAL, flows)
        used = [number for number in PORTS if sent[number]]
        assert sum(map(len, sent.values())) == len(flows), side.name
        # Open vSwitch may put both halves into one bucket, and so may we.
        assert len(used) == ports or (len(used) < ports == 2), (side.name, used)
