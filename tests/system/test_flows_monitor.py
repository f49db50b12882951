# SPDX-License-Identifier: Apache-2.0
"""`ovs-ofctl monitor br0 watch:...` beside Open vSwitch: the same lines for the same changes."""

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import pytest
from tools.lab.flows import BRIDGE, Side, StockSide
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools, environment, program
from tools.lab.processes import answers, eventually

from heliograph.openflow.actions import Output
from heliograph.openflow.codec import encode
from heliograph.openflow.flows import FlowCommand, FlowMod
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message
from heliograph.openflow.messages import (
    BundleAction,
    BundleAdd,
    BundleControl,
    BundleFlags,
    FlowModTableId,
    Version,
)

VERSIONS = {
    "OpenFlow10": Version.V10,
    "OpenFlow13": Version.V13,
    "OpenFlow14": Version.V14,
    "OpenFlow15": Version.V15,
}
WATCHED = [
    ["watch:"],
    ["watch:!own"],
    ["watch:!initial,!actions,table=2"],
    ["watch:out_port=2"],
    ["watch:!add,!modify,ip,nw_src=10.0.0.0/8"],
    ["watch:!delete,!initial", "watch:!own,in_port=1,!actions"],
]
NO_LIST = {"watch:!initial,!actions,table=2"}
BY_GROUP = ["watch:out_group=5"]  # from 1.4 on
GROUP = "group_id=5,type=all,bucket=actions=output:2"
ATOMIC = BundleFlags.ATOMIC | BundleFlags.ORDERED
Step = Callable[[Side], object]


def ofctl(*words: str, stdin: str = "") -> Step:
    return lambda side: side.ofctl(words[0], BRIDGE, *words[1:], stdin=stdin)


def of_10(*words: str) -> Step:
    """A MODIFY of 1.0 may change cookies, and adds flows that are not there."""
    return lambda side: side.ofctl(words[0], BRIDGE, *words[1:], version="OpenFlow10")


def bundle(*lines: str) -> Step:
    return lambda side: side.ofctl("--bundle", "add-flows", BRIDGE, "-", stdin="\n".join(lines))


BEGINNING = [
    "cookie=7,idle_timeout=300,hard_timeout=500,priority=5,ip,nw_src=10.1.2.3,actions=output:2",
    "table=2,importance=4,in_port=1,dl_vlan=3,actions=strip_vlan,output:2,group:5",
    "table=3,send_flow_rem,udp6,tp_dst=53,actions=drop",
    "actions=NORMAL",
]
STEPS: list[Step] = [
    ofctl("add-flow", "in_port=1,actions=output:2"),
    ofctl("add-flow", "in_port=1,actions=output:2"),  # there already, and told again
    ofctl("add-flow", "in_port=1,cookie=9,idle_timeout=60,actions=output:3"),
    ofctl("mod-flows", "in_port=1,actions=output:4"),
    ofctl("mod-flows", "in_port=1,actions=output:4"),  # changes nothing
    of_10("mod-flows", "cookie=5,in_port=1,actions=output:4"),
    of_10("mod-flows", "cookie=6,in_port=3,dl_type=0x88cc,actions=output:2,output:1"),
    lambda side: side.ofctl("--strict", "del-flows", BRIDGE, "priority=32768,in_port=1"),
    ofctl("add-flow", "table=2,ip,nw_src=10.7.0.0/16,actions=dec_ttl,1"),
    ofctl("mod-flows", "ip,actions=output:2"),
    ofctl("del-flows", "in_port=3,out_port=2"),
    ofctl("del-flows", "table=0,out_port=2"),
    ofctl("add-flow", "table=4,in_port=1,actions=group:5"),
    ofctl("mod-flows", "table=4,actions=output:9"),
    ofctl("mod-flows", "table=4,actions=group:5,goto_table:9"),
    ofctl("mod-group", GROUP.replace("output:2", "output:3")),  # changes no flow
    ofctl("del-groups", "group_id=5"),
    bundle(
        "add in_port=2,actions=output:1",
        "add in_port=2,actions=output:4",
        "modify in_port=2,actions=output:5",
        "delete in_port=2",
        "add table=2,in_port=1,actions=output:2",
        "delete_strict table=3,priority=32768,udp6,tp_dst=53",
    ),
    ofctl("replace-flows", "-", stdin="actions=NORMAL\ntable=2,in_port=1,actions=output:7\n"),
]
# More than one message is long, of flows in an order that is the same everywhere.
MANY: list[Step] = [
    bundle(*(f"table=7,priority={n},in_port=9,actions=output:1" for n in range(1200))),
    ofctl("del-flows", "table=7,in_port=9"),
]
# It goes in its own time: nothing else is told meanwhile.
SHORT = ofctl("add-flow", "in_port=1,hard_timeout=1,actions=output:2")


class Watcher:
    """The real ovs-ofctl monitor."""

    def __init__(self, lab: Lab, side: Side, version: str, words: list[str]) -> None:
        self.tools, self.version = side.tools, version
        self._control = self.tools.rundir / f"watch{len(lab.processes)}"
        self._listed = lab.path(f"listed{len(lab.processes)}")
        self._process = lab.start(
            side.host,
            program("ovs-ofctl"),
            *("-O", version, f"--unixctl={self._control}", "monitor", BRIDGE, *words),
            out=self._listed,
            env=environment(self.tools.rundir),
        )
        assert eventually(lambda: answers(self._control)), self._process.log_text()
        self._xid = 0x100

    def _command(self, *words: str) -> None:
        self.tools.run("ovs-appctl", "-t", str(self._control), *words)

    def settle(self) -> None:
        """Until all that came before is printed."""
        self._command("ofctl/barrier")

    def send(self, *messages: Message) -> None:
        """As its own."""
        for message in messages:
            self._xid += 1
            if isinstance(message, BundleAdd):  # what is within has the same number
                numbered: Message = replace(message, xid=self._xid)
            else:
                numbered = message
            data = encode(numbered, VERSIONS[self.version], self._xid)
            self._command("ofctl/send", data.hex())
        self.settle()

    def has(self, text: str) -> bool:
        return text in self._process.log_text()

    def lines(self) -> list[str]:
        """The flows that monitors began with, in no order, and what was told of changes."""
        listed, told = self._listed.read_text(), self._process.log_text()
        return sorted(_events(listed)) + list(_events(told))


def _events(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if "event=" in line or "FLOW_MONITOR" in line:
            yield re.sub(r" \(xid=\w+\)", "", line)


def own(watcher: Watcher) -> None:
    """Changes of a connection that watches."""
    places = [Match.of({"in_port": (n, 0xFFFF)}) for n in (1, 2)]
    if watcher.version == "OpenFlow10":
        watcher.send(FlowModTableId(True))
    add, also = (
        FlowMod(command=FlowCommand.ADD, table_id=0, match=match, actions=(Output(2),))
        for match in places
    )
    modify = FlowMod(
        command=FlowCommand.MODIFY, cookie=None, table_id=0, match=places[0], actions=(Output(4),)
    )
    gone = [FlowMod(command=FlowCommand.DELETE, table_id=0, match=match) for match in places]
    watcher.send(add, modify, also)
    watcher.send(*gone)
    if watcher.version != "OpenFlow10":
        watcher.send(
            BundleControl(5, BundleAction.OPEN_REQUEST, ATOMIC),
            *(BundleAdd(5, ATOMIC, mod, 0) for mod in (modify, add, also, modify, *gone)),
            BundleControl(5, BundleAction.COMMIT_REQUEST, ATOMIC),
        )


@pytest.fixture
def sides(lab: Lab, switch: Heliograph, ovs: Tools) -> Iterator[tuple[Side, Side]]:
    made = StockSide(lab), Side(lab, ovs, switch.host)
    yield made
    for side in made:
        side.close()


def watched(lab: Lab, side: Side) -> dict[tuple[str, str], Watcher]:
    side.ofctl("del-flows", BRIDGE)
    side.ofctl("add-group", BRIDGE, GROUP)
    side.ofctl("add-flows", BRIDGE, "-", stdin="\n".join(BEGINNING))
    watchers = {}
    for version, number in VERSIONS.items():
        for words in WATCHED + [BY_GROUP] * (number >= Version.V14):
            watchers[version, " ".join(words)] = Watcher(lab, side, version, words)

    def settle() -> None:
        for watcher in watchers.values():
            watcher.settle()

    settle()
    for step in STEPS:
        step(side)
    for step in MANY:  # nobody shall be so far behind that telling pauses
        settle()
        step(side)
    settle()
    SHORT(side)
    for version in VERSIONS:
        everything = watchers[version, "watch:"]
        assert eventually(partial(everything.has, "reason=hard")), version
    for version in VERSIONS:
        for which in ("watch:", "watch:!own"):
            own(watchers[version, which])
    settle()
    return watchers


def test_every_monitor_prints_what_it_prints_of_open_vswitch(
    lab: Lab, sides: tuple[Side, Side]
) -> None:
    stock, ours = (watched(lab, side) for side in sides)
    for name, watcher in stock.items():
        wanted, found = watcher.lines(), ours[name].lines()
        assert found == wanted, name
        assert any("event=" in line for line in wanted[-2:]), name
        begins = wanted[0].startswith(" event=")
        assert begins == (name[1] not in NO_LIST), name
