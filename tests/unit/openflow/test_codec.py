# SPDX-License-Identifier: Apache-2.0
"""Messages survive being written and read, and no bytes at all make the reader fall over."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.openflow import strategies as s

from heliograph.openflow import actions as a
from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.codec import (
    Frame,
    Framer,
    decode,
    encode,
    error_message,
    refuse,
    stream,
)
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.kinds import STATS, TYPES
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message

PATIENT = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
every_version = pytest.mark.parametrize("version", s.VERSIONS)


def frames(data: bytes) -> list[Frame]:
    framer = Framer()
    framer.feed(data)
    found = []
    while frame := framer.next():
        found.append(frame)
    return found


def returned(message: Message, version: int) -> Message:
    (frame,) = frames(encode(message, version, 7))
    assert (frame.version, frame.xid) == (version, 7)
    return decode(frame)


@every_version
@given(data=st.data())
@PATIENT
def test_flow_mods_return(version: int, data: st.DataObject) -> None:
    mod = data.draw(s.flow_mods(version))
    table = 0 if version == 1 else mod.table_id
    (frame,) = frames(encode(mod, version))
    assert decode(frame) == mod
    if version == 1:
        assert decode(frame, table_ids=True).table_id == table  # type: ignore[union-attr]


@every_version
@given(data=st.data())
@PATIENT
def test_flow_stats_return(version: int, data: st.DataObject) -> None:
    nicira = version == 1 and data.draw(st.booleans())
    flows = st.lists(s.flow_stats(version, nicira=nicira), max_size=3).map(tuple)
    reply = f.FlowStatsReply(data.draw(flows), nicira)
    assert returned(reply, version) == reply


@every_version
@given(data=st.data())
@PATIENT
def test_groups_return(version: int, data: st.DataObject) -> None:
    mod = data.draw(s.group_mods(version))
    assert returned(mod, version) == mod
    desc = f.GroupDescReply((f.GroupDesc(5, mod.type, mod.buckets, mod.selection),))
    assert returned(desc, version) == desc


@every_version
@given(data=st.data())
@PATIENT
def test_packets_return(version: int, data: st.DataObject) -> None:
    metadata = Match.of({"reg0": (5, 0xF), "tun_id": (7, 0xFFFF_FFFF_FFFF_FFFF)})
    out = f.PacketOut(
        actions=data.draw(s.action_lists(version)),
        data=data.draw(s.DATA),
        in_port=data.draw(st.sampled_from([1, 0xFEFF, a.Port.LOCAL, a.Port.NONE])),
        metadata=metadata if version == 6 else Match(),
    )
    assert returned(out, version) == out
    in_port = Match.of({"in_port": (data.draw(s.PORTS), 0xFFFF)})
    reasons = list(f.PacketInReason)[: 6 if version >= 5 else 3]
    packet = f.PacketIn(
        data=data.draw(s.DATA),
        total_len=data.draw(st.integers(41, 0xFFFF)),
        reason=data.draw(st.sampled_from(reasons)),
        match=in_port,
        buffer_id=data.draw(st.none() | st.integers(0, 0xFFFF_FFFE)),
    )
    assert returned(packet, version) == packet
    for form in list(f.PacketInFormat)[1:]:
        rich = f.PacketIn(
            data=packet.data,
            total_len=packet.total_len,
            reason=packet.reason,
            match=data.draw(s.matches()),
            table_id=data.draw(s.U8),
            cookie=data.draw(st.none() | st.integers(0, (1 << 64) - 2)),
            userdata=data.draw(st.none() | s.DATA) if form == 2 else None,
            format=form,
        )
        assert returned(rich, version) == rich


@every_version
@given(data=st.data())
@PATIENT
def test_removed_flows_return(version: int, data: st.DataObject) -> None:
    nicira = version == 1 and data.draw(st.booleans())
    full = version > 1
    gone = f.FlowRemoved(
        match=data.draw(s.matches()) if nicira or full else Match(),
        reason=data.draw(st.sampled_from(list(f.RemovedReason)[: 6 if version >= 5 else 3])),
        table_id=data.draw(st.integers(0, 254)) if nicira or full else 0,
        priority=data.draw(s.U16),
        cookie=data.draw(s.U64),
        duration_ns=data.draw(st.integers(0, 10**18)),
        idle_timeout=data.draw(s.U16),
        hard_timeout=data.draw(s.U16) if full else 0,
        packets=data.draw(s.U64),
        bytes=data.draw(s.U64),
        nicira=nicira,
    )
    assert returned(gone, version) == gone


@every_version
@given(data=st.data())
@PATIENT
def test_requests_for_flows_return(version: int, data: st.DataObject) -> None:
    for make in (f.FlowStatsRequest, f.AggregateRequest):
        request = data.draw(s.flow_requests(version, make))
        assert returned(request, version) == request


@every_version
@given(data=st.data())
@PATIENT
def test_ports_return(version: int, data: st.DataObject) -> None:
    ports = data.draw(st.lists(s.PORT_DESCS, max_size=4).map(tuple))
    assert returned(m.PortDescReply(ports), version) == m.PortDescReply(ports)
    for port in ports[:1]:
        status = m.PortStatus(m.PortReason.MODIFY, port)
        assert returned(status, version) == status
    counts = m.PortStats(
        port=data.draw(s.PORTS),
        rx_packets=data.draw(s.U32),
        tx_bytes=data.draw(s.U32),
        collisions=data.draw(st.none() | s.U32),
        duration_ns=data.draw(s.U32) if version > 1 else None,
    )
    assert returned(m.PortStatsReply((counts,)), version) == m.PortStatsReply((counts,))


def simple_messages(version: int) -> list[Message]:
    """One of each of those whose contents hardly vary."""
    nicira = version == 1
    bits = m.AsyncConfig(packet_in=(1, 2), port_status=(3, 4), flow_removed=(5, 6))
    some: list[Message] = [
        m.Hello(frozenset({1, 4})),
        m.Hello(frozenset(range(1, version + 1))),
        m.EchoRequest(b"abc"),
        m.EchoReply(b""),
        m.FeaturesRequest(),
        m.FeaturesReply(datapath_id=1 << 40, tables=64, capabilities=m.Capabilities(0x47)),
        m.GetConfigRequest(),
        m.GetConfigReply(1, 128),
        m.SetConfig(0, 0xFFFF),
        m.PortMod(port=3, address=5, config=m.PortConfig.DOWN, mask=m.PortConfig(65)),
        m.BarrierRequest(),
        m.BarrierReply(),
        m.RoleRequest(m.Role.PRIMARY, nicira=True),
        m.RoleReply(m.Role.SECONDARY, nicira=True),
        m.SetAsync(bits, nicira=True),
        m.FlowModTableId(True),
        m.SetPacketInFormat(f.PacketInFormat.NXT_PACKET_IN2),
        m.SetControllerId(9),
        m.QueueConfigRequest(4),
        m.QueueConfigReply(4 if version < 5 else a.Port.NONE),
        m.DescRequest(),
        m.DescReply("a", "b", "c", "d", "e"),
        f.AggregateReply(1, 2, 3),
        m.TableStatsRequest(),
        m.TableStatsReply((m.TableStats(table_id=3, active=1, lookups=2, matched=3),)),
        m.PortStatsRequest(4),
        m.PortDescRequest(),
        m.QueueStatsRequest(4, 5),
        m.QueueStatsReply(),
        f.GroupStatsRequest(4),
        f.GroupStatsReply((f.GroupStats(group_id=4, duration_ns=5, buckets=((1, 2), (3, 4))),)),
        f.GroupDescRequest(),
        f.GroupFeaturesRequest(),
        f.GroupFeaturesReply(
            types=15, capabilities=3, max_groups=(1, 2, 3, 4), actions=(5, 6, 7, 8)
        ),
    ]
    return some + (OF_10 if nicira else messages_from_13(version))


OF_10: list[Message] = [m.SetFlowFormat(True), f.AggregateReply(1, 2, 3, nicira=True)]


def messages_from_13(version: int) -> list[Message]:
    bits = m.AsyncConfig(packet_in=(1, 2), port_status=(3, 4), flow_removed=(5, 6))
    mod = f.FlowMod(command=f.FlowCommand.DELETE, cookie=None)
    some: list[Message] = [
        m.RoleRequest(m.Role.EQUAL, 17),
        m.RoleReply(m.Role.PRIMARY),
        m.SetAsync(bits),
        m.GetAsyncRequest(),
        m.GetAsyncReply(bits),
        m.TableMod(4, 0),
        m.TableFeaturesRequest(),
        m.TableFeaturesReply((m.TableFeatures(table_id=1, name="one"),)),
        m.MeterMod(0, 5),
        m.MeterStatsRequest(5),
        m.MeterStatsRequest(5, config=True),
        m.MeterStatsReply(),
        m.MeterStatsReply(config=True),
        m.MeterFeaturesRequest(),
        m.MeterFeaturesReply(),
        m.BundleControl(5, m.BundleAction.OPEN_REQUEST, m.BundleFlags.ATOMIC),
        m.BundleAdd(5, m.BundleFlags.ORDERED, mod, 7, encode(mod, version, 7)),
    ]
    if version >= 5:
        some += [m.TableDescRequest(), m.TableDescReply(((1, 0), (2, 0)))]
        partly = m.AsyncConfig(packet_in=(0, 2), port_status=(3, 0), flow_removed=(0, 0))
        some.append(m.SetAsync(partly, said=(False, True, True, False, False, False)))
        some += [m.RoleStatus(m.Role.SECONDARY), m.RoleStatus(m.Role.EQUAL, m.RoleReason.CONFIG, 7)]
    return some


def test_what_a_message_leaves_unsaid_stays_as_it_was() -> None:
    """Which messages are sent unasked: from 1.4 on, a property for each kind and role."""
    old = m.AsyncConfig(packet_in=(1, 2), port_status=(3, 4), flow_removed=(5, 6))
    said = read(b"\0\1\0\x08\0\0\0\0\0\2\0\x08\0\0\0\x09", 5, 28)
    assert isinstance(said, m.SetAsync)
    assert said.over(old) == replace(old, packet_in=(0, 2), port_status=(3, 9))


@every_version
def test_all_other_messages_return(version: int) -> None:
    for message in simple_messages(version):
        assert returned(message, version) == message


@every_version
@given(error=s.failures())
@settings(deadline=None)
def test_errors_return_with_what_they_are_about(version: int, error: OpenFlowError) -> None:
    for data in bytes(range(100)), bytes(65535):
        (frame,) = frames(refuse(error, Frame(version, 14, 9, data)))
        assert frame.xid == 9
        assert decode(frame) == error_message(error, version, data[: 65535 - 64])


def test_a_long_reply_is_split_and_says_so() -> None:
    """No part is longer than a message may be, and all but the last say that more follows."""
    flow = f.FlowStats(match=Match(), actions=tuple(a.Output(n) for n in range(1, 50)))
    parts = list(stream(f.FlowStatsReply(flow for _ in range(1000)), 4, 3))
    assert len(parts) > 10
    assert all(len(part) <= 0xFFFF for part in parts)
    assert [part[11] for part in parts] == [1] * (len(parts) - 1) + [0]
    replies = [decode(frame) for part in parts for frame in frames(part)]
    entries = [e for r in replies if isinstance(r, f.FlowStatsReply) for e in r.entries]
    assert entries == [flow] * 1000


@settings(deadline=None)
@given(cuts=st.lists(st.integers(1, 30), min_size=1, max_size=40))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    sent = [m.EchoRequest(bytes(n)) for n in range(10)]
    data = b"".join(encode(message, 4, n) for n, message in enumerate(sent))
    framer, got = Framer(), []
    while data:
        size = cuts[len(data) % len(cuts)]
        framer.feed(data[:size])
        data = data[size:]
        while frame := framer.next():
            got.append(decode(frame))
    assert got == sent
    assert framer.next() is None


def test_a_message_shorter_than_its_header_ends_the_stream() -> None:
    framer = Framer()
    framer.feed(b"\x04\x00\x00\x07\x00\x00\x00\x00")
    with pytest.raises(OpenFlowError) as caught:
        framer.next()
    assert caught.value.code is Code.OFPBRC_BAD_LEN


def read(data: bytes, version: int, kind: int) -> Message | Code:
    """What a message of these bytes is, or the error it is answered with."""
    head = bytes([version, kind]) + (8 + len(data)).to_bytes(2, "big") + bytes(4)
    frame = Frame(version, kind, 0, head + data)
    try:
        return decode(frame)
    except OpenFlowError as error:
        assert frames(refuse(error, frame))
        return error.code


@every_version
@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_random_bytes_are_refused_or_read(version: int, data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(sorted(TYPES[version])))
    body = data.draw(st.binary(max_size=200))
    if TYPES[version][kind].startswith("STATS") and len(body) > 2:
        number = data.draw(st.sampled_from([*STATS[version], 0xFFFF]))
        body = number.to_bytes(2, "big") + body[2:]
    read(body, version, kind)


@every_version
@given(data=st.data())
@settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.too_slow])
def test_damaged_messages_are_refused_or_read(version: int, data: st.DataObject) -> None:
    """Whole messages, of which some bytes are others, or the end is missing or too long."""
    kinds: list[Any] = [s.flow_mods(version), s.group_mods(version)]
    kinds.append(st.sampled_from(simple_messages(version)))
    whole = bytearray(encode(data.draw(st.one_of(*kinds)), version))
    for _ in range(data.draw(st.integers(0, 4))):
        if len(whole) > 8:
            whole[data.draw(st.integers(8, len(whole) - 1))] = data.draw(s.U8)
    cut = data.draw(st.integers(8, len(whole)))
    extra = data.draw(st.binary(max_size=20))
    read(bytes(whole[8:cut]) + extra, version, whole[1])


@every_version
@given(data=st.data())
@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.too_slow])
def test_a_flow_mod_cut_short_is_never_read(version: int, data: st.DataObject) -> None:
    """Except where an action or an instruction ends, which cannot be told from the whole."""
    mod = data.draw(s.flow_mods(version))
    whole = encode(mod, version)
    for size in range(8, len(whole)):
        got = read(whole[8:size], version, whole[1])
        assert isinstance(got, Code) or (size % 8 == 0 and got != mod)


EXACT = [
    (4, 99, b"", Code.OFPBRC_BAD_TYPE),
    (1, 4, b"\0\0\0\1\0\0\0\1", Code.OFPBRC_BAD_VENDOR),
    (4, 4, b"\0\0\x23\x20\0\0\xff\xff", Code.OFPBRC_BAD_SUBTYPE),
    (1, 4, b"\x4f\x4e\x46\0\0\0\x08\xfc", Code.OFPBRC_BAD_SUBTYPE),  # bundles on 1.0
    (4, 18, b"\0\x63\0\0\0\0\0\0", Code.OFPBRC_BAD_STAT),
    (4, 18, b"\0\x10\0\0\0\0\0\0", Code.OFPBRC_BAD_STAT),  # 1.4's flow monitors
    (1, 16, b"\xff\xff\0\0\0\0\x23\x20\0\0\0\3\0\0\0\0", Code.OFPBRC_BAD_SUBTYPE),
    (4, 18, b"\xff\xff\0\0\0\0\0\0\0\0\0\1\0\0\0\1", Code.OFPBRC_BAD_VENDOR),
    (4, 18, b"\xff\xff\0\0\0\0\0\0\x4f\x4e\x46\0\0\0\x07\x4f", Code.OFPBRC_BAD_SUBTYPE),
    (4, 18, b"\0\x0c\0\1\0\0\0\0", Code.OFPBRC_MULTIPART_BUFFER_OVERFLOW),
    (1, 14, b"", Code.OFPBRC_BAD_LEN),
    (1, 20, b"", Code.OFPBRC_BAD_LEN),
    (1, 18, b"\0", Code.OFPBRC_BAD_LEN),
    (2, 14, b"", Code.OFPBRC_BAD_VERSION),
    (4, 24, b"\0\0\0\7" + bytes(12), Code.OFPRRFC_BAD_ROLE),
    (4, 29, b"\0\7" + bytes(6), Code.OFPMMFC_BAD_COMMAND),
    (4, 15, b"\0\7\0\0\0\0\0\1", Code.OFPGMFC_BAD_COMMAND),
    (4, 15, b"\0\0\7\0\0\0\0\1", Code.OFPGMFC_BAD_TYPE),
    (4, 15, b"\0\2\0\0\0\0\0\1" + b"\0\x10" + bytes(14), Code.OFPGMFC_INVALID_GROUP),
    (5, 33, b"\0\0\0\1\0\x63\0\0", Code.OFPBFC_BAD_TYPE),
    (5, 33, b"\0\0\0\1\0\0\0\x10", Code.OFPBFC_BAD_FLAGS),
    (5, 34, b"\0\0\0\1\0\0\0\0", Code.OFPBFC_MSG_BAD_LEN),
    (5, 34, b"\0\0\0\1\0\0\0\0\5\x14\0\x08\0\0\0\0", Code.OFPBFC_MSG_UNSUP),
    (5, 34, b"\0\0\0\1\0\0\0\0\5\x0e\0\x08\0\0\0\1", Code.OFPBFC_MSG_BAD_XID),
]


@pytest.mark.parametrize(("version", "kind", "body", "code"), EXACT)
def test_the_error_is_the_exact_one(version: int, kind: int, body: bytes, code: Code) -> None:
    assert read(body, version, kind) is code


FLOW_MOD = 14
TWELVE = Match.of(
    {
        "in_port": (1, 0xFFFF),
        "eth_src": (1, 0xFFFF_FFFF_FFFF),
        "eth_dst": (2, 0xFFFF_FFFF_FFFF),
        "vlan_tci": (0x1005, 0xFFFF),
        "eth_type": (0x800, 0xFFFF),
        "nw_proto": (17, 0xFF),
        "ip_dscp": (0, 0x3F),
        "ip_src": (3, 0xFFFF_FFFF),
        "ip_dst": (4, 0xFFFF_FFFF),
        "udp_src": (5, 0xFFFF),
        "udp_dst": (6, 0xFFFF),
    }
)


@pytest.mark.parametrize("command", f.FlowCommand)
def test_what_1_0_says_without_wildcards_has_the_highest_priority(command: f.FlowCommand) -> None:
    """Whatever its message says; with another one it is said in Nicira's way, which asks."""
    reset = f.FlowFlags.RESET_COUNTS if command == f.FlowCommand.ADD else f.FlowFlags.NONE
    for priority in (0, 0x8000, 0xFFFF):
        mod = f.FlowMod(command=command, match=TWELVE, priority=priority, flags=reset)
        assert returned(mod, 1) == mod
    standard = bytearray(encode(mod, 1))
    assert standard[1] == FLOW_MOD
    standard[62:64] = b"\0\5"
    assert read(bytes(standard[8:]), 1, FLOW_MOD) == mod
    standard[8:12] = b"\0\0\0\1"  # any port
    any_port = Match(tuple(field for field in TWELVE if field[0] != "in_port"))
    assert read(bytes(standard[8:]), 1, FLOW_MOD) == replace(mod, match=any_port, priority=5)


def test_what_is_accepted_fits_into_a_message_of_every_version() -> None:
    """The longest lists of the shortest actions, said where they take most room."""
    longest = (a.StripVlan(), a.SetVlanVid(5)) * 1024
    mod = f.FlowMod(command=f.FlowCommand.ADD, actions=longest, flags=f.FlowFlags.RESET_COUNTS)
    assert returned(mod, 1) == mod
    for version in s.VERSIONS:
        reply = f.FlowStatsReply([f.FlowStats(match=Match(), actions=longest)], version == 1)
        assert encode(reply, version)
    too_long = encode(f.FlowMod(command=f.FlowCommand.ADD, actions=(*longest, a.Exit())), 1)
    assert read(too_long[8:], 1, 14) is Code.OFPBAC_TOO_MANY
    buckets = tuple(f.Bucket(bucket_id=n, weight=0) for n in range(0x5000 // 8 + 1))
    group = f.GroupMod(command=f.GroupCommand.ADD, group_id=1, buckets=buckets)
    assert read(encode(group, 6)[8:], 6, 15) is Code.OFPGMFC_OUT_OF_BUCKETS
    most = f.GroupMod(command=f.GroupCommand.ADD, group_id=1, buckets=buckets[1:])
    assert returned(most, 6) == most
    for version in s.VERSIONS:
        assert encode(f.GroupDescReply([f.GroupDesc(1, most.type, most.buckets)]), version)
