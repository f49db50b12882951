# SPDX-License-Identifier: Apache-2.0
"""A frame meets a change of the tables whole or not at all, however large the change is."""

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

import pytest
from tests.system.flow_hosts import Hosts, shared
from tests.system.flow_storm import KINDS, Storm, destination

from heliograph.openflow.actions import Output
from heliograph.openflow.flows import (
    Bucket,
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    GroupType,
)
from heliograph.openflow.match import Match

ALARM = 4
TABLES = range(1, 5)


@pytest.fixture(scope="module")
def hosts(tokens: list[str]) -> Iterator[Hosts]:
    yield from shared(tokens)


class Arrived:
    """Numbers of the frames that came to each host, filled in at the end."""

    def __init__(self) -> None:
        self.sent = 0
        self.at: dict[int, list[int]] = {}

    def check(self, *, times: int = 1) -> None:
        """Each frame came so often, to host 2 or to host 3, and none gave an alarm."""
        assert self.sent > 1000
        alarms = self.at[ALARM]
        assert not alarms, f"{len(alarms)} of {self.sent} frames met parts of two versions"
        for number in (2, 3):
            assert self.at[number] == sorted(self.at[number]), "frames were reordered"
        both = sorted(self.at[2] + self.at[3])
        every = [n for n in range(self.sent) for _ in range(times)]
        assert both == every, f"{len(every)} sent, {len(both)} came"


@contextmanager
def storm(hosts: Hosts) -> Iterator[Arrived]:
    arrived = Arrived()
    captures = {number: hosts.capture(number) for number in (2, 3, ALARM)}
    with Storm(hosts.guest, "g1") as frames:
        yield arrived
    arrived.sent = frames.sent
    for number, capture in captures.items():
        with capture:
            arrived.at[number] = frames.numbers(capture.everything())


def version(number: int) -> list[str]:
    """500 flows: table 0 notes the version in a register and a tag, each later one checks it."""
    flows = []
    for kind in range(KINDS):
        to = f"dl_dst={destination(kind)}"
        note = f"load:{number}->NXM_NX_REG0[],push_vlan:0x8100,set_field:{4096 + number}->vlan_vid"
        flows.append(f"table=0,in_port=1,{to},actions={note},goto_table:1")
        for table in TABLES[:-1]:
            same = f"reg0={number},{to},dl_vlan={number}"
            flows.append(f"table={table},{same},actions=goto_table:{table + 1}")
        last = f"reg0={number},{to},dl_vlan={number},actions=pop_vlan,output:{1 + number}"
        flows.append(f"table={TABLES[-1]},{last}")
    return flows + [f"table={n},priority=0,actions=output:{ALARM}" for n in TABLES]


def test_bundles_of_500_flows(hosts: Hosts) -> None:
    """replace-flows and add-flows in bundles, and mod-flows, back and forth."""
    texts = {number: "\n".join(version(number)) for number in (1, 2)}
    hosts.replace(version(1))
    with storm(hosts) as arrived:
        for turn in range(6):
            text = texts[2 - turn % 2]
            hosts.ofctl("--bundle", "replace-flows", "br0", "-", stdin=text)
    arrived.check()
    assert arrived.at[2] and arrived.at[3]
    assert len(hosts.dump()) == 5 * KINDS + len(TABLES)


def test_one_message_that_changes_two_tables(hosts: Hosts) -> None:
    """mod-flows of OpenFlow 1.0 without a table changes them all."""
    to = [f"dl_dst={destination(kind)}" for kind in range(KINDS)]
    flows = [f"table={t},cookie=7,{one},actions=output:2" for t in (1, 2) for one in to]
    hosts.replace(["in_port=1,actions=resubmit(,1),resubmit(,2)", *flows])
    with storm(hosts) as arrived:
        for turn in range(40):
            hosts.ofctl(
                "mod-flows",
                "br0",
                f"cookie=7/-1,actions=output:{3 - turn % 2}",
                version="OpenFlow10",
            )
    arrived.check(times=2)
    old, new = (set(arrived.at[number]) for number in (2, 3))
    assert old and new
    assert not old & new, "frames met one table before a change and one after it"


def flow(command: FlowCommand, port: int) -> FlowMod:
    match = Match.of({"in_port": (1, 0xFFFF)})
    return FlowMod(command=command, table_id=0, priority=5, match=match, actions=(Output(port),))


def group(*ports: int) -> GroupMod:
    buckets = tuple(Bucket(bucket_id=n, actions=(Output(port),)) for n, port in enumerate(ports))
    return GroupMod(command=GroupCommand.MODIFY, group_id=1, type=GroupType.ALL, buckets=buckets)


def change_for(
    seconds: float, hosts: Hosts, mods: Sequence[FlowMod | GroupMod], least: int = 100
) -> None:
    """Send these in turn as fast as they are answered, so many times at least."""
    count = 0
    with closing(hosts.controller()) as controller:
        end = time.monotonic() + seconds
        while time.monotonic() < end or count < least:
            assert controller.change(mods[count % len(mods)]) == ""
            count += 1


@pytest.mark.parametrize("command", [FlowCommand.ADD, FlowCommand.MODIFY_STRICT])
def test_one_flow_that_changes_all_the_time(hosts: Hosts, command: FlowCommand) -> None:
    hosts.replace(["priority=5,in_port=1,actions=output:2", f"priority=1,actions=output:{ALARM}"])
    with storm(hosts) as arrived:
        change_for(2, hosts, [flow(command, port) for port in (3, 2)])
    arrived.check()
    assert arrived.at[2] and arrived.at[3]
    # A flow is the same one through its changes, so are its counters.
    counts = [counted for flow, counted in hosts.counts().items() if "priority=5" in flow]
    assert counts == [(arrived.sent, 60 * arrived.sent)]


def test_a_flow_that_hides_another(hosts: Hosts) -> None:
    """It comes and goes; below it is one with the same match."""
    hosts.replace(["priority=4,in_port=1,actions=output:2", f"priority=1,actions=output:{ALARM}"])
    mods = [flow(c, 3) for c in (FlowCommand.ADD, FlowCommand.DELETE_STRICT)]
    with storm(hosts) as arrived:
        change_for(2, hosts, mods)
    arrived.check()
    assert arrived.at[2] and arrived.at[3]


def test_groups(hosts: Hosts) -> None:
    """The flow goes through its group twice, and meets the same buckets both times."""
    groups = ["group_id=1,type=all,bucket=output:2,bucket=output:3"]
    hosts.replace(["in_port=1,actions=group:1,group:1"], groups)
    with storm(hosts) as arrived:
        mods = [group(2, 2), group(3, 3, 3), group(2, 3)]
        change_for(2, hosts, mods, least=30)
    two, three = (Counter(arrived.at[number]) for number in (2, 3))
    met = {(two[n], three[n]) for n in range(arrived.sent)}
    assert met == {(4, 0), (0, 6), (2, 2)}, "(times at host 2, times at host 3)"
    assert not arrived.at[ALARM]


def test_a_bundle_of_groups_and_flows(hosts: Hosts) -> None:
    """A group's buckets and the flows that they come to change together."""

    def lines(number: int, command: str) -> str:
        bucket = f"load:{number}->NXM_NX_REG1[],resubmit(,5)"
        flows = [
            f"flow add table=5,priority=9,{to},reg1={number},actions=output:{1 + number}"
            for to in (f"dl_dst={destination(kind)}" for kind in range(KINDS))
        ]
        gone = f"flow delete table=5,reg1={3 - number}"
        return "\n".join(
            (f"group {command} group_id=1,type=indirect,bucket={bucket}", gone, *flows)
        )

    hosts.replace([f"table=5,priority=1,actions=output:{ALARM}"])
    hosts.ofctl("bundle", "br0", "-", stdin=lines(1, "add"))
    hosts.ofctl("add-flow", "br0", "in_port=1,actions=group:1")
    with storm(hosts) as arrived:
        for turn in range(40):
            hosts.ofctl("bundle", "br0", "-", stdin=lines(2 - turn % 2, "modify"))
    arrived.check()
    assert arrived.at[2] and arrived.at[3]


def test_from_10_flows_to_20_000(hosts: Hosts) -> None:
    """Their memory is made anew many times, while frames go through it and are counted."""
    hosts.replace([f"priority=9,in_port=1,dl_vlan={n},actions=drop" for n in range(9)])
    hosts.ofctl("add-flow", "br0", "priority=1,in_port=1,actions=resubmit(,1),output:2")
    many = [
        f"table={n % 4},priority={2 + n % 3},in_port=1,ip,nw_src=10.{n >> 8}.{n & 255}.0/24"
        ",actions=drop"
        for n in range(20_000)
    ]
    lookups, matched = hosts.tables()[1]
    with storm(hosts) as arrived:
        hosts.ofctl("add-flows", "br0", "-", stdin="\n".join(many))
    arrived.check()
    assert hosts.ofctl("dump-aggregate", "br0").endswith("flow_count=20010\n")
    counts = [counted for flow, counted in hosts.counts().items() if "priority=1," in flow]
    assert counts == [(arrived.sent, 60 * arrived.sent)]
    assert hosts.tables()[1] == (lookups + arrived.sent, matched)
    told = f"active=5000, lookup={lookups + arrived.sent}, matched={matched}"
    assert told in hosts.ofctl("dump-tables", "br0")
