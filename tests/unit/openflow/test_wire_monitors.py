# SPDX-License-Identifier: Apache-2.0
"""Flow monitors: read as ovs-ofctl says them, printed by it as they were meant."""

from struct import pack

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.unit.openflow import ofctl
from tests.unit.openflow import strategies as s

from heliograph.openflow import monitors as o
from heliograph.openflow.actions import Output
from heliograph.openflow.codec import Frame, Framer, decode, encode, stream
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import RemovedReason
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message

PATIENT = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
every_version = pytest.mark.parametrize("version", s.VERSIONS)
EVERYTHING = o.MonitorFlags(0x3F)
SUBNET = Match.of({"eth_type": (0x800, 0xFFFF), "ip_src": (0x01020300, 0xFFFFFF00)})
CHOSEN = o.Monitor(id=0, flags=o.MonitorFlags(0xF), match=SUBNET, table_id=3, out_port=2)
# What ovs-ofctl sends for "watch:", and for
# "watch:!own,!actions,table=3,out_port=2,ip,nw_src=1.2.3.0/24".
SENT = {
    1: (
        "01100028 00000006 ffff0000 00002320 00000002 0000000000000000 003fffff 0000ff00 00000000",
        "01100040 00000006 ffff0000 00002320 00000002 00000000"
        "00000000 000f0002 00120300 00000000 00000602 08000000 0f080102 0300ffff ff000000 00000000",
    ),
    4: (
        "04120030 00000006 ffff0000 00000000 4f4e4600 0000074e"
        "00000000 003f0004 ffffffff ff000000 00010004 00000000",
        "04120040 00000006 ffff0000 00000000 4f4e4600 0000074e"
        "00000000 000f0016 00000002 03000000 00010016 80000a02 08008000 17080102 0300ffff ff000000",
    ),
    5: (
        "05120028 00000006 00100000 0000000000000000 ffffffff ffffffff 005fff00 00010004 00000000",
        "05120038 00000006 00100000 00000000"
        "00000000 00000002 ffffffff 000f0300 00010016 80000a02 08008000 17080102 0300ffff ff000000",
    ),
}
SENT[6] = ("06" + SENT[5][0][2:], "06" + SENT[5][1][2:])
HEADS = {1: "!HHII4x", 4: "!HH4xII", 5: "!HH4x", 6: "!HH4x"}


def returned(message: Message, version: int) -> Message:
    framer = Framer()
    framer.feed(encode(message, version, 7))
    frame = framer.next()
    assert frame is not None
    assert framer.next() is None
    return decode(frame)


def request(version: int, body: bytes) -> Frame:
    numbers = {1: (0xFFFF, 0, 0x2320, 2), 4: (0xFFFF, 0, 0x4F4E4600, 1870)}
    data = pack(HEADS[version], *numbers.get(version, (16, 0))) + body
    kind = 16 if version == 1 else 18
    return Frame(version, kind, 7, pack("!BBHI", version, kind, len(data) + 8, 7) + data)


@st.composite
def monitors(draw: st.DrawFn, version: int) -> o.Monitor:
    command = o.MonitorCommand.ADD if version < 5 else draw(st.sampled_from(o.MonitorCommand))
    deletes = command == o.MonitorCommand.DELETE
    return o.Monitor(
        id=draw(s.U32),
        flags=o.MonitorFlags(0 if deletes else draw(st.integers(1, 63).filter(lambda n: n & 15))),
        match=draw(s.matches()),
        table_id=draw(s.U8),
        out_port=draw(s.PORTS),
        command=command,
    )


@st.composite
def updates(draw: st.DrawFn, version: int) -> o.FlowUpdate:
    event = draw(st.sampled_from(list(o.FlowEvent)[version < 5 :]))
    deleted = event == o.FlowEvent.DELETED
    return o.FlowUpdate(
        event=event,
        match=draw(s.matches()),
        actions=draw(s.flow_actions(version)),
        table_id=draw(s.U8),
        priority=draw(s.U16),
        cookie=draw(s.U64),
        idle_timeout=draw(s.U16),
        hard_timeout=draw(s.U16),
        reason=draw(st.sampled_from(RemovedReason)) if deleted else None,
    )


@every_version
@given(data=st.data())
@PATIENT
def test_messages_return(version: int, data: st.DataObject) -> None:
    asked = o.MonitorRequest(tuple(data.draw(st.lists(monitors(version), max_size=3))))
    assert returned(asked, version) == asked
    entries = st.lists(updates(version) | st.builds(o.OwnUpdate, s.U32), max_size=3)
    told = o.MonitorReply(tuple(data.draw(entries)))
    assert returned(told, version) == told
    others: list[Message] = [o.MonitorPaused(), o.MonitorResumed()]
    if version < 5:
        others.append(o.MonitorCancel(data.draw(s.U32)))
    for message in others:
        assert returned(message, version) == message


@every_version
@given(data=st.data())
@PATIENT
def test_damaged_messages_are_refused(version: int, data: st.DataObject) -> None:
    asked = o.MonitorRequest(tuple(data.draw(st.lists(monitors(version), min_size=1, max_size=2))))
    told = o.MonitorReply([data.draw(updates(version))])
    intact: list[Message] = [asked, told]
    raw = bytearray(encode(data.draw(st.sampled_from(intact)), version))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(24, len(raw) - 1))] = data.draw(s.U8)
    raw = raw[: data.draw(st.integers(24, len(raw)))]
    try:
        decode(Frame(version, raw[1], 0, bytes(raw)))
    except OpenFlowError as error:
        assert error.code.number(version)


@every_version
def test_what_ofctl_asks_for_is_understood(version: int) -> None:
    for sent, wanted in zip(
        SENT[version], (o.Monitor(id=0, flags=EVERYTHING), CHOSEN), strict=True
    ):
        data = bytes.fromhex(sent)
        assert decode(Frame(version, data[1], 6, data)) == o.MonitorRequest((wanted,))
        assert encode(o.MonitorRequest((wanted,)), version, 6) == data


@pytest.mark.parametrize("version", [5, 6])
def test_the_flag_of_the_specification_for_own_changes_is_known_too(version: int) -> None:
    body = pack("!IIIHBB", 5, 0xFFFF_FFFF, 0xFFFF_FFFF, 0x2F, 0xFF, 0) + b"\0\1\0\4\0\0\0\0"
    (monitor,) = decode(request(version, body)).monitors  # type: ignore[union-attr]
    assert monitor == o.Monitor(id=5, flags=o.MonitorFlags(0x2F))


@every_version
def test_what_is_told_is_printed(version: int) -> None:
    common = {"match": SUBNET, "table_id": 3, "cookie": 7, "idle_timeout": 5, "hard_timeout": 9}
    told = o.MonitorReply(
        [
            o.FlowUpdate(event=o.FlowEvent.INITIAL, actions=(Output(2),), **common),  # type: ignore[arg-type]
            o.FlowUpdate(event=o.FlowEvent.ADDED, match=Match(), priority=5),
            o.FlowUpdate(event=o.FlowEvent.MODIFIED, match=Match()),
            o.OwnUpdate(0x123),
            *(
                o.FlowUpdate(event=o.FlowEvent.DELETED, match=Match(), reason=reason)
                for reason in list(RemovedReason)[:4]
            ),
        ]
    )
    flow = "table=3 idle_timeout=5 hard_timeout=9 cookie=0x7 ip,nw_src=1.2.3.0/24 actions=output:2"
    # It prints no priorities.
    lines = [line.rstrip() for line in ofctl.printed(encode(told, version)).splitlines()]
    assert lines[1:] == [
        f" event={'INITIAL' if version >= 5 else 'ADDED'} {flow}",
        " event=ADDED table=0 cookie=0",
        " event=MODIFIED table=0 cookie=0",
        " event=ABBREV xid=0x123",
        *(
            f" event=DELETED reason={reason} table=0 cookie=0"
            for reason in ("idle", "hard", "delete", "group_delete")
        ),
    ]
    family = {1: "NXST", 4: "ONFST"}.get(version, "OFPST")
    assert lines[0].startswith(f"{family}_FLOW_MONITOR reply")
    assert "PAUSED" in ofctl.printed(encode(o.MonitorPaused(), version))
    assert "RESUMED" in ofctl.printed(encode(o.MonitorResumed(), version))


@every_version
def test_long_answers_are_cut(version: int) -> None:
    update = o.FlowUpdate(event=o.FlowEvent.ADDED, match=SUBNET, actions=(Output(2),))
    parts = list(stream(o.MonitorReply([update] * 3000), version))
    assert len(parts) > 1
    assert all(len(part) <= 0xFFFF for part in parts)
    text = ofctl.printed(b"".join(parts))
    assert text.count("event=ADDED") == 3000
    assert "***" not in text


def refused(version: int, body: bytes) -> Code:
    with pytest.raises(OpenFlowError) as raised:
        decode(request(version, body))
    return raised.value.code


@pytest.mark.parametrize("flags", [0, 0x10, 0x80, 0x8001])
def test_flags_that_are_none_or_ask_for_nothing(flags: int) -> None:
    empty = b"\0\1\0\4\0\0\0\0"
    bodies = {
        1: pack("!IHHHB5x", 1, flags, 0xFFFF, 0, 0xFF),
        4: pack("!IHHIB3x", 1, flags, 4, 0xFFFF_FFFF, 0xFF) + empty,
        5: pack("!IIIHBB", 1, 0xFFFF_FFFF, 0xFFFF_FFFF, flags, 0xFF, 0) + empty,
    }
    for version, body in bodies.items():
        assert refused(version, body) == Code.OFPMOFC_BAD_FLAGS


def test_the_error_is_the_exact_one() -> None:
    cookie = bytes.fromhex("00013c080000000000000007")
    assert refused(1, pack("!IHHHB5x", 1, 1, 0xFFFF, 12, 0xFF) + cookie + bytes(4)) == (
        Code.OFPBMC_BAD_FIELD
    )
    assert refused(1, pack("!IHHHB5x", 1, 1, 0xFFFF, 16, 0xFF)) == Code.OFPBMC_BAD_LEN
    assert refused(1, bytes(8)) == Code.OFPBRC_BAD_LEN
    empty = b"\0\1\0\4\0\0\0\0"
    body = pack("!IHHIB3x", 1, 1, 12, 0xFFFF_FFFF, 0xFF) + empty
    assert refused(4, body) == Code.OFPBMC_BAD_LEN
    body = pack("!IHHIB3x", 1, 1, 4, 0x12345, 0xFF) + empty
    assert refused(4, body) == Code.OFPBAC_BAD_OUT_PORT
    body = pack("!IIIHBB", 1, 0xFFFF_FFFF, 0xFFFF_FFFF, 1, 0xFF, 3) + empty
    assert refused(5, body) == Code.OFPMOFC_BAD_COMMAND
