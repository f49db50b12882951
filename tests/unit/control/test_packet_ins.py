# SPDX-License-Identifier: Apache-2.0
"""Frames for controllers: whole, with what came with them, to those that want them."""

import time
from dataclasses import replace
from typing import Any

import pytest
import scapy.all as scapy
from tests.unit.control.client import Client
from tests.unit.control.fakes import BRIDGE, Switch

from heliograph.control.packet_ins import metadata, on_the_wire
from heliograph.kernel.layouts import KeyWord, PacketIn, PacketInReason, TableFlags
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Controller
from heliograph.openflow.match import Match

FRAME = bytes(range(12)) + b"\x88\xb5" + bytes(86)
OP, STORE = 77, 7


def key(**words: int) -> tuple[int, ...]:
    places = {int(KeyWord[name]): value for name, value in words.items()}
    return tuple(places.get(n, 0) for n in range(32))


IN_PORT_1 = key(KEY_PORT=1 << 32 | 0x88B5 << 16)


def record(**changes: Any) -> PacketIn:
    plain = PacketIn(
        store=STORE,
        rule=0,
        op=0,
        length=len(FRAME),
        captured=len(FRAME),
        table=0,
        reason=PacketInReason.NO_MATCH,
        tags=0,
        network=0,
        transport=0,
        padding=0,
        key=IN_PORT_1,
    )
    return plain._replace(**changes)


async def client(switch: Switch, version: int, *messages: m.SetPacketInFormat | Any) -> Client:
    made = await Client.connect(switch.path, version)
    assert await made.ask(m.SetConfig(0, 128), *messages) == []
    switch.service.stores = {STORE: BRIDGE}
    return made


async def received(*clients: Client) -> list[list[f.PacketIn]]:
    told = [await one.ask() for one in clients]
    return [[message for message in said if isinstance(message, f.PacketIn)] for said in told]


def test_tags_are_put_where_they_are_on_a_wire() -> None:
    assert on_the_wire(record(), FRAME) == FRAME
    one = record(key=key(KEY_PORT=1 << 32 | 0x7005, KEY_TAGS=0x88A8 << 48))
    assert on_the_wire(one, FRAME) == FRAME[:12] + bytes.fromhex("88a86005") + FRAME[12:]
    both = key(KEY_PORT=0x1005, KEY_TAGS=0x88A8 << 48 | 0x8100 << 32 | 7 << 16)
    tags = bytes.fromhex("88a8000581000007")
    assert on_the_wire(record(key=both), FRAME) == FRAME[:12] + tags + FRAME[12:]
    behind = FRAME[:12] + tags[4:] + FRAME[12:]  # the second is in the frame's bytes already
    assert on_the_wire(record(key=both, tags=1), behind) == FRAME[:12] + tags + FRAME[12:]
    moved = record(key=key(KEY_PORT=0x1005))  # by a move, which says nothing of a TPID
    assert on_the_wire(moved, FRAME)[12:16] == bytes.fromhex("81000005")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("transport", ["TCP", "UDP"])
def test_a_checksum_left_to_the_device_is_filled_in(version: int, transport: str) -> None:
    network = scapy.IP(dst="10.7.0.2") if version == 4 else scapy.IPv6(dst="fc00::2")
    packet = network / getattr(scapy, transport)(sport=1, dport=2) / b"odd"
    whole = bytes(scapy.Ether(dst="02:00:00:00:00:01", src="02:00:00:00:00:02") / packet)
    header = 14 + (20 if version == 4 else 40)
    place = header + (16 if transport == "TCP" else 6)
    pending = whole[:place] + b"\x12\x34" + whole[place + 2 :] + bytes(5)  # and padding
    protocol = 6 if transport == "TCP" else 17
    told = record(
        key=key(KEY_ETH_DST=protocol << 8),
        length=len(pending),
        network=14,
        transport=header,
    )
    assert on_the_wire(told, pending) == whole + bytes(5)
    assert on_the_wire(told._replace(length=9000), pending) == pending, "it was cut"


def test_what_came_with_a_frame() -> None:
    words = {"KEY_PORT": 0xFFFE << 32, "KEY_METADATA": 9, "KEY_REGISTERS": 5}
    expected = {"in_port": (0xFFFE, 0xFFFF), "metadata": (9, 2**64 - 1), "reg1": (5, 2**32 - 1)}
    assert metadata(key(**words)) == Match.of(expected)


async def test_misses_go_to_early_versions_that_asked(switch: Switch) -> None:
    """And the data plane is told while there is one."""
    assert switch.plane.flags == {}
    early = await client(switch, 1)
    late = await client(switch, 4)
    shy = await Client.connect(switch.path, 1)  # a service that asked for nothing
    assert switch.plane.flags == dict.fromkeys(range(64), TableFlags.TABLE_MISS_TO_CONTROLLER)
    switch.service.packet_in(record(length=200), FRAME)
    (first,), second, third = await received(early, late, shy)
    assert (first.data, first.total_len) == (FRAME, 200)
    assert first.reason == f.PacketInReason.NO_MATCH
    assert (second, third) == ([], [])
    await early.close()
    assert switch.plane.flags == dict.fromkeys(range(64), 0)
    await late.close()
    await shy.close()


async def test_a_flow_sends_to_the_controller_that_it_numbers(switch: Switch) -> None:
    await switch.ofctl(1, "add-flow", "cookie=0x77,priority=9,actions=controller")
    (flow_id,) = switch.plane.rules
    switch.plane.actions[OP] = (Controller(), Controller(controller_id=5, userdata=b"abc"))
    in2 = m.SetPacketInFormat(f.PacketInFormat.NXT_PACKET_IN2)
    plain = await client(switch, 4)
    five = await client(switch, 1, in2, m.SetControllerId(5))
    by_action = record(rule=flow_id, op=OP, table=2, reason=PacketInReason.BY_ACTION)
    switch.service.packet_in(by_action, FRAME)
    (first,), (second,) = await received(plain, five)
    assert (first.reason, first.cookie, first.table_id) == (f.PacketInReason.ACTION, 0x77, 2)
    assert first.match == Match.of({"in_port": (1, 0xFFFF)})
    assert (second.userdata, second.cookie) == (b"abc", 0x77)
    await plain.close()
    await five.close()


@pytest.mark.parametrize("version", [1, 4, 5])
async def test_a_flow_for_what_nothing_else_matches(switch: Switch, version: int) -> None:
    """From 1.3 on its frames are misses; those of a group never are."""
    await switch.ofctl(1, "add-flow", "priority=0,actions=controller")
    (flow_id,) = switch.plane.rules
    switch.plane.actions[OP] = (Controller(),)
    one = await client(switch, version)
    by_action = record(rule=flow_id, op=OP, reason=f.PacketInReason.ACTION)
    switch.service.packet_in(by_action, FRAME)
    switch.service.packet_in(by_action._replace(reason=f.PacketInReason.GROUP), FRAME)
    ((miss, group),) = await received(one)
    early = version == 1
    assert miss.reason == (f.PacketInReason.ACTION if early else f.PacketInReason.NO_MATCH)
    assert group.reason == (f.PacketInReason.GROUP if version == 5 else f.PacketInReason.ACTION)
    await one.close()


async def test_the_reason_that_a_flow_says(switch: Switch) -> None:
    switch.plane.actions[OP] = (Controller(reason=0, extended=True),)
    one = await client(switch, 4)
    switch.service.packet_in(record(op=OP, reason=PacketInReason.BY_ACTION), FRAME)
    ((told,),) = await received(one)
    assert (told.reason, told.cookie) == (f.PacketInReason.NO_MATCH, None)
    await one.close()


async def test_frames_whose_time_is_over_are_for_who_asks(switch: Switch) -> None:
    switch.plane.actions[OP] = (Controller(),)
    one, other = await client(switch, 1), await client(switch, 1)
    await other.ask(m.SetConfig(4, 128))
    assert await other.ask(m.GetConfigRequest()) == [m.GetConfigReply(4, 128)]
    switch.service.packet_in(record(op=OP, reason=PacketInReason.INVALID_TTL), FRAME)
    first, second = await received(one, other)
    assert first == []
    assert [told.reason for told in second] == [f.PacketInReason.INVALID_TTL]
    await one.close()
    await other.close()


async def test_no_more_than_the_rate_and_nothing_of_other_bridges(switch: Switch) -> None:
    row = replace(switch.controller("punix:br0.ctl"), rate_limit=100, burst_limit=25)
    await switch.configure(controllers=(row,))
    one = await Client.connect(switch.rundir / "br0.ctl", 1)
    await one.ask(m.SetConfig(0, 128))
    switch.service.packet_in(record(), FRAME)  # its store is not known
    switch.service.stores = {STORE: BRIDGE}
    began = time.monotonic()
    for _ in range(200):
        switch.service.packet_in(record(), FRAME)
    most = 26 + 100 * (time.monotonic() - began)
    (told,) = await received(one)
    assert 25 <= len(told) <= most
    await one.close()


async def test_a_controller_that_does_not_read_loses_frames_and_stays(
    switch: Switch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.control.channel._MUCH", 1 << 16)
    one = await client(switch, 1)
    for _ in range(20_000):
        switch.service.packet_in(record(), FRAME)
    assert switch.bridge.peers
    (told,) = await received(one)
    assert 500 < len(told) < 20_000
    await one.close()
