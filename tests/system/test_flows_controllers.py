# SPDX-License-Identifier: Apache-2.0
"""Who controls a bridge: rows of Controller, fail_mode, protocols; and what controllers hear."""

import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial
from typing import TypeVar

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether
from tests.system.flow_hosts import ALL_VERSIONS, PROTOCOLS, Called, Hosts, shared
from tests.system.site import frame
from tools.lab.openflow import Controller
from tools.lab.processes import PATIENCE, Process, eventually

from heliograph.openflow import actions
from heliograph.openflow.actions import Output
from heliograph.openflow.flows import (
    FlowCommand,
    FlowMod,
    FlowRemoved,
    PacketIn,
    PacketInReason,
    PacketOut,
    RemovedReason,
)
from heliograph.openflow.match import Match
from heliograph.openflow.messages import (
    AsyncConfig,
    EchoRequest,
    PortConfig,
    PortReason,
    PortStatus,
    SetAsync,
    SetConfig,
    Version,
)

T = TypeVar("T", PacketIn, FlowRemoved, PortStatus)
EVERYTHING = AsyncConfig(packet_in=(7, 7), port_status=(7, 7), flow_removed=(15, 15))
FRAME = frame()
MACS = {"src": "02:00:00:00:00:01", "dst": "02:00:00:00:00:02"}
TCP = "tcp:127.0.0.1:6633"
PATIENT = "inactivity_probe=60000"  # with a test, which may be held up


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[Hosts]:
    yield from shared(tokens)


@pytest.fixture
def hosts(made: Hosts) -> Hosts:
    """With what a bridge has to begin with."""
    made.tools.vsctl(f"del-controller br0 -- set bridge br0 {PROTOCOLS} -- del-fail-mode br0")
    made.replace(["priority=0,actions=NORMAL"])
    return made


def told(controller: Controller, kind: type[T], count: int = 1) -> list[T]:
    """What of a kind came unasked, once there is so much."""

    def there() -> bool:
        controller.send(EchoRequest())
        return sum(isinstance(one, kind) for one in controller.unasked) >= count

    assert eventually(there), controller.unasked
    found = [one for one in controller.unasked if isinstance(one, kind)]
    controller.unasked = [one for one in controller.unasked if not isinstance(one, kind)]
    return found


def column(hosts: Hosts, target: str, name: str) -> str:
    """Of the row of Controller with that target."""
    words = "--bare", f"--columns={name}", "find", "controller", f'target="{target}"'
    return hosts.tools.vsctl(*words).strip()


def connected(hosts: Hosts, target: str, wanted: str) -> bool:
    return eventually(lambda: column(hosts, target, "is_connected") == wanted)


class Call:
    """A place where the switch is to call."""

    def __init__(self, hosts: Hosts, target: str) -> None:
        self.target = target
        method, _, rest = target.partition(":")
        if method == "tcp":
            host, port = rest.split(":")
            make: Callable[[], socket.socket] = partial(socket.create_server, (host, int(port)))
            self._listening = hosts.switch.host.call(make)
        else:
            self._listening = socket.socket(socket.AF_UNIX)
            self._listening.bind(rest)
            self._listening.listen()
        self._listening.settimeout(PATIENCE)

    def answer(self, version: Version = Version.V13) -> Called:
        return Called(self._listening.accept()[0], version)

    def hang_up(self) -> None:
        """Answer no more."""
        self._listening.close()

    def __enter__(self) -> "Call":
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()


@pytest.mark.parametrize("version", list(Version))
def test_a_controller_decides_for_each_new_flow(hosts: Hosts, version: Version) -> None:
    """The first frame goes to it, it is sent on, and then there is a flow. (From 1.3 on, where
    there is no other, nothing is told unless a flow asks for it.)"""
    with Call(hosts, TCP) as call:
        hosts.tools.vsctl(f"set-controller br0 {TCP}")
        with closing(call.answer(version)) as controller:
            controller.send(EchoRequest())
            assert hosts.flows() == [], "who controls begins with an empty table"
            if version != Version.V10:
                send = (actions.Controller(),)
                miss = FlowMod(command=FlowCommand.ADD, table_id=0, priority=0, actions=send)
                assert controller.change(miss) == ""
            assert hosts.send(1, FRAME) == {}
            (came,) = told(controller, PacketIn)
            assert (came.data, came.match.get("in_port")) == (FRAME, (1, 0xFFFF))
            match = Match.of({"in_port": (1, 0xFFFF)})
            to = (Output(2),)
            add = FlowMod(command=FlowCommand.ADD, table_id=0, match=match, actions=to)
            assert controller.change(add) == ""
            with hosts.capture(2) as two:
                controller.send(PacketOut(actions=to, data=came.data, in_port=1))
                assert [one.data for one in two.collect(1)] == [FRAME]
            assert hosts.send(1, FRAME) == {2: [FRAME]}
            assert controller.unasked == []


def test_rows_tell_how_it_is(hosts: Hosts) -> None:
    """is_connected, role, status, and what is wrong with a target."""
    called, listens = f"unix:{hosts.switch.rundir}/called", f"punix:{hosts.switch.rundir}/br0.more"
    with Call(hosts, TCP) as tcp, Call(hosts, called) as unix:
        hosts.tools.vsctl(
            f"set-controller br0 {TCP} {called} {listens} ptcp:6700:127.0.0.1 ssl:127.0.0.1"
            f" unix:/etc/passwd nonsense"
        )
        one, two = tcp.answer(), unix.answer(Version.V15)
        with closing(one), closing(two):
            for target in TCP, called:
                assert connected(hosts, target, "true")
                assert column(hosts, target, "role") == "other"
                assert "state=ACTIVE" in column(hosts, target, "status")
                assert "sec_since_connect=" in column(hosts, target, "status")
            for target in listens, "ptcp:6700:127.0.0.1", "nonsense":
                assert column(hosts, target, "is_connected") == "false"
            text = "heliograph-error=\"?'{}'"
            for target in "ssl:127.0.0.1", "unix:/etc/passwd", "nonsense":
                said = column(hosts, target, "external_ids")
                assert re.search(text.format(target), said), said
            connect = partial(socket.create_connection, ("127.0.0.1", 6700), PATIENCE)
            more = Controller(hosts.switch.rundir / "br0.more", Version.V13)
            with closing(more), closing(Called(hosts.switch.host.call(connect), Version.V10)):
                for target in listens, "ptcp:6700:127.0.0.1":
                    assert connected(hosts, target, "true")
            for target in listens, "ptcp:6700:127.0.0.1":
                assert connected(hosts, target, "false")
        assert connected(hosts, TCP, "false")
        assert re.search("state=(BACKOFF|CONNECTING|VOID)", column(hosts, TCP, "status"))
        assert "sec_since_disconnect=" in column(hosts, TCP, "status")
        tcp.answer().close()  # it calls again
    hosts.tools.vsctl("del-controller br0")
    assert hosts.flows() == ["cookie=0x0, table=0, priority=0 actions=NORMAL"]
    assert not (hosts.switch.rundir / "br0.more").exists()


@pytest.mark.parametrize("mode", ["standalone", "secure"])
def test_rule_68_without_its_controller(hosts: Hosts, mode: str) -> None:
    """Standalone: after three probes it forwards by itself, until a controller is there again."""
    default = ["cookie=0x0, table=0, priority=0 actions=NORMAL"]
    hosts.tools.vsctl(f"set-fail-mode br0 {mode}")
    assert hosts.flows() == ([] if mode == "secure" else default)
    with Call(hosts, TCP) as call:
        hosts.tools.vsctl(
            f"set-controller br0 {TCP} -- set controller br0 {PATIENT} max_backoff=1000"
        )
        with closing(call.answer()) as controller:
            controller.send(EchoRequest())
            assert hosts.send(1, FRAME) == {}
        call.hang_up()
        hosts.tools.vsctl("set controller br0 inactivity_probe=500")
        if mode == "secure":
            time.sleep(3)
            assert hosts.flows() == []
            assert hosts.send(1, FRAME) == {}
        else:
            assert eventually(lambda: hosts.flows() == default)
            assert sorted(hosts.send(1, FRAME)) == [2, 3, 4]
    hosts.tools.vsctl(f"set controller br0 {PATIENT}")
    with Call(hosts, TCP) as call, closing(call.answer()) as controller:
        assert eventually(lambda: controller.send(EchoRequest()) != [] and hosts.flows() == [])
        assert hosts.send(1, FRAME) == {}


def test_what_controllers_are_told(hosts: Hosts) -> None:
    """Flows that go, ports that change, frames that a flow or a TTL sends to them."""
    hosts.replace(
        [
            "cookie=7,dl_vlan=5,actions=controller",
            "cookie=8,ip,in_port=2,actions=dec_ttl,output:3",
            "cookie=10,send_flow_rem,in_port=3,actions=drop",
        ]
    )
    tagged = frame(tag="81000005")
    dying = bytes(Ether(**MACS) / IP(src="10.0.0.1", dst="10.0.0.2", ttl=1) / UDP())
    with closing(hosts.controller(Version.V13)) as controller:
        controller.send(SetConfig(0, 0xFFFF))
        controller.send(SetAsync(EVERYTHING))
        hosts.send(1, tagged)
        (came,) = told(controller, PacketIn)
        assert (came.data, came.cookie, came.reason) == (tagged, 7, PacketInReason.ACTION)
        hosts.send(2, dying)
        (came,) = told(controller, PacketIn)
        assert (came.data, came.cookie, came.reason) == (dying, 8, PacketInReason.INVALID_TTL)
        short = "cookie=9,send_flow_rem,hard_timeout=1,in_port=4,actions=drop"
        hosts.ofctl("add-flow", "br0", short)
        (gone,) = told(controller, FlowRemoved)
        assert (gone.cookie, gone.reason) == (9, RemovedReason.HARD_TIMEOUT)
        hosts.send(3, frame(), frame())
        hosts.ofctl("del-flows", "br0", "cookie=10/-1")
        (gone,) = told(controller, FlowRemoved)
        wanted = 10, RemovedReason.DELETE, 2, 120
        assert (gone.cookie, gone.reason, gone.packets, gone.bytes) == wanted
        hosts.ofctl("mod-port", "br0", "2", "no-receive")
        (status,) = told(controller, PortStatus)
        assert (status.reason, status.port.number) == (PortReason.MODIFY, 2)
        assert status.port.config == PortConfig.NO_RECV
        hosts.ofctl("mod-port", "br0", "2", "receive")
        told(controller, PortStatus)
        hosts.tools.vsctl("add-port br0 tap9 -- set interface tap9 type=internal ofport_request=9")
        added, *_ = told(controller, PortStatus)
        assert (added.reason, added.port.number, added.port.name) == (PortReason.ADD, 9, "tap9")
        hosts.tools.vsctl("del-port tap9")
        assert told(controller, PortStatus)[-1].reason == PortReason.DELETE
    assert hosts.send(1, tagged) == {}, "with nobody there it just goes nowhere"


def test_monitor(hosts: Hosts) -> None:
    """The real ovs-ofctl monitor prints frames as they come, in each version."""
    flows = [
        "cookie=7,in_port=1,actions=load:5->NXM_NX_REG1[],controller",
        "priority=0,actions=drop",
    ]
    hosts.replace(flows)
    for version in ALL_VERSIONS:
        monitor = hosts.watch("-O", version, "monitor", "br0", "65534")

        def says(monitor: Process = monitor) -> bool:
            hosts.send(1, FRAME)
            return "dl_type=0x88b6" in monitor.log_text()

        assert eventually(says)
        printed = monitor.log_text()
        assert "PACKET_IN" in printed, printed
        assert "total_len=60" in printed and "in_port=1" in printed, printed
        assert "dl_type=0x88b6" in printed, printed
        if version != "OpenFlow10":
            assert "cookie=0x7" in printed and "reg1=0x5" in printed, printed
        monitor.stop()


def test_no_packet_in(hosts: Hosts) -> None:
    """Of frames that nothing matches, those of that port are not told; a flow's are."""
    with Call(hosts, TCP) as call:
        hosts.tools.vsctl(f"set-controller br0 {TCP}")
        with closing(call.answer(Version.V10)) as controller:
            controller.send(EchoRequest())
            hosts.ofctl("mod-port", "br0", "1", "no-packet-in")
            told(controller, PortStatus)
            hosts.send(1, FRAME)
            hosts.send(2, FRAME)
            (came,) = told(controller, PacketIn)
            assert came.match.get("in_port") == (2, 0xFFFF)
            hosts.ofctl("add-flow", "br0", "in_port=1,actions=controller")
            hosts.send(1, FRAME)
            (came,) = told(controller, PacketIn)
            assert came.match.get("in_port") == (1, 0xFFFF)
            hosts.ofctl("mod-port", "br0", "1", "packet-in")


def test_protocols(hosts: Hosts) -> None:
    """Only what the bridge may speak is spoken; without any said, all are."""
    hosts.tools.vsctl("set bridge br0 protocols=OpenFlow13,OpenFlow15")
    for version in "OpenFlow13", "OpenFlow15":
        assert hosts.flows(version=version)
    for version in "OpenFlow10", "OpenFlow14":
        assert "version negotiation failed" in hosts.refused("dump-flows", "br0", version=version)
    hosts.tools.vsctl("clear bridge br0 protocols")
    for version in ALL_VERSIONS:
        assert hosts.flows(version=version)
    hosts.tools.vsctl("set bridge br0 protocols=OpenFlow12")
    assert hosts.refused("dump-flows", "br0")
    said = hosts.tools.vsctl("get bridge br0 external_ids")
    assert "OpenFlow12" in said, said


def test_ofport_request(hosts: Hosts) -> None:
    """A port gets the number that is asked for, if no other has it, and flows go by it."""
    hosts.replace(["in_port=77,actions=output:2", "in_port=1,actions=output:3"])
    assert hosts.send(1, FRAME) == {3: [FRAME]}
    hosts.tools.vsctl("set interface p1 ofport_request=77")
    assert hosts.tools.vsctl("get interface p1 ofport") == "77"
    assert hosts.send(1, FRAME) == {2: [FRAME]}
    assert "77(p1)" in hosts.ofctl("show", "br0")
    hosts.tools.vsctl("set interface p1 ofport_request=2")
    assert hosts.tools.vsctl("get interface p2 ofport") == "2"
    assert hosts.tools.vsctl("get interface p1 ofport") != "2"
    hosts.tools.vsctl("set interface p1 ofport_request=1")
    assert hosts.send(1, FRAME) == {3: [FRAME]}


def test_a_new_port_is_not_sent_what_flows_say_of_one_that_is_gone(hosts: Hosts) -> None:
    """Its number is the last to be given again, also while that one's device is away."""
    number = hosts.tools.vsctl("get interface p1 ofport")
    hosts.tools.vsctl("clear interface p1 ofport_request -- del-port p1")
    new = "add-port br0 new -- set interface new type=internal"
    hosts.tools.vsctl(new)
    assert hosts.tools.vsctl("get interface new ofport") not in {"-1", number}
    hosts.tools.vsctl(f"del-port new -- {new} ofport_request={number}")
    assert hosts.tools.vsctl("get interface new ofport") == number, hosts.tools.vsctl(
        "list interface new"
    )
