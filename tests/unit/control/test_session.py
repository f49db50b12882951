# SPDX-License-Identifier: Apache-2.0
"""What one connection may say, and what becomes of it when it says something else."""

import asyncio
import logging
import random
from dataclasses import replace
from struct import pack

import pytest
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch

from heliograph.openflow import flows as f
from heliograph.openflow import messages as m
from heliograph.openflow.actions import Output
from heliograph.openflow.codec import encode
from heliograph.openflow.match import Match

every_version = pytest.mark.parametrize("version", [1, 4, 5, 6])
FLOW = f.FlowMod(command=f.FlowCommand.ADD, table_id=0, actions=(Output(1),))


def raw(version: int, kind: int, body: bytes = b"", xid: int = 7) -> bytes:
    return pack("!BBHI", version, kind, 8 + len(body), xid) + body


async def test_the_highest_common_version_is_spoken(switch: Switch) -> None:
    await switch.configure(protocols=frozenset({"OpenFlow10", "OpenFlow13", "OpenFlow12"}))
    client = await Client.silent(switch.path, 1)
    hello = await client.message()
    assert hello == m.Hello(frozenset({1, 4}))
    client.writer.write(encode(m.Hello(frozenset({1, 4, 6})), 6))
    client.writer.write(raw(4, 2, b"x"))
    frame = await client.frame()
    assert frame is not None
    assert frame.data == raw(4, 3, b"x")
    assert switch.peers[0].subscription.version == 4
    await client.close()


async def test_no_common_version(switch: Switch, caplog: pytest.LogCaptureFixture) -> None:
    await switch.configure(protocols=frozenset({"OpenFlow13"}))
    client = await Client.silent(switch.path, 1)
    await client.message()
    client.writer.write(raw(1, 0))
    assert await client.message() == "OFPHFC_INCOMPATIBLE"
    assert await client.message() is None
    assert "this bridge speaks 0x4, the peer 0x1" in caplog.text


async def test_a_bridge_that_speaks_no_version(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    await switch.configure(protocols=frozenset({"OpenFlow12"}))
    client = await Client.silent(switch.path, 1)
    assert await client.message() is None
    assert "protocols name no version" in caplog.text


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (raw(1, 5), "a message of type 5 came instead of a hello"),
        (b"GET / HTTP/1.1\r\n\r\n" + bytes(30_000), "instead of a hello"),
        (raw(1, 0, pack("!HH", 1, 2)), "what came is no hello"),
        (bytes(8), "what came is no hello"),
    ],
)
async def test_who_does_not_greet_is_closed(
    switch: Switch, caplog: pytest.LogCaptureFixture, said: bytes, why: str
) -> None:
    client = await Client.silent(switch.path, 1)
    await client.message()
    client.writer.write(said)
    assert await client.message() is None
    assert why in caplog.text
    other = await Client.connect(switch.path, 1)
    assert await other.ask() == []
    await other.close()


@every_version
async def test_messages_of_other_versions(switch: Switch, version: int) -> None:
    """As Open vSwitch: refused, and the connection goes on; an echo is answered in any."""
    client = await Client.connect(switch.path, version)
    other = 5 if version == 6 else 6
    assert await client.ask(raw(other, 5)) == ["OFPBRC_BAD_VERSION"]
    assert await client.ask(raw(9, 5)) == ["OFPBRC_BAD_VERSION"]
    client.writer.write(raw(9, 2, b"hi"))
    frame = await client.frame()
    assert frame is not None
    assert frame.data == raw(9, 3, b"hi")
    await client.close()


@every_version
async def test_messages_that_are_none(switch: Switch, version: int) -> None:
    client = await Client.connect(switch.path, version)
    stats = 16 if version == 1 else 18
    pad = b"" if version == 1 else bytes(4)
    for said, name in (
        (raw(version, 77), "OFPBRC_BAD_TYPE"),
        (m.Hello(frozenset({version})), "OFPBRC_BAD_TYPE"),
        (m.BarrierReply(), "OFPBRC_BAD_TYPE"),
        (raw(version, 5, b"abcd"), "OFPBRC_BAD_LEN"),
        (raw(version, 14, b"abcd"), "OFPBRC_BAD_LEN"),
        (raw(version, stats, pack("!HH", 300, 0) + pad), "OFPBRC_BAD_STAT"),
        (raw(version, 4, pack("!II", 0x1234, 5)), "OFPBRC_BAD_VENDOR"),
        (raw(version, 4, pack("!II", 0x2320, 9999)), "OFPBRC_BAD_SUBTYPE"),
        (
            raw(version, stats, pack("!HH", 0xFFFF, 0) + pad + pack("!II4x", 0x2320, 99)),
            "OFPBRC_BAD_SUBTYPE",
        ),
    ):
        assert await client.ask(said) == [name], said
    assert await client.ask(m.EchoReply(b"x")) == []
    await client.close()


async def test_a_message_whose_length_cannot_be_ends_the_connection(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await Client.connect(switch.path, 1)
    client.writer.write(pack("!BBHI", 1, 5, 4, 7))
    assert await client.message() is None
    assert "what came is no OpenFlow: OFPBRC_BAD_LEN" in caplog.text
    assert switch.peers == []


@every_version
async def test_random_messages_never_end_the_service(switch: Switch, version: int) -> None:
    chance = random.Random(version)
    seeds = [
        encode(FLOW, version),
        encode(f.GroupMod(command=f.GroupCommand.ADD, group_id=1), version),
        encode(f.FlowStatsRequest(), version),
        encode(f.PacketOut(actions=(Output(1),), data=bytes(60)), version),
        encode(m.PortMod(port=1, address=1), version),
    ]
    client = await Client.connect(switch.path, version)
    for _ in range(300):
        data = bytearray(chance.choice(seeds))
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(4, len(data))] = chance.randrange(256)
        answers = await client.ask(bytes(data))
        assert None not in answers
    await client.close()


async def test_silence_is_asked_about_and_then_the_end(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    await switch.configure(controllers=(switch.controller("punix:br0.ctl", probe=0.1),))
    path = switch.rundir / "br0.ctl"
    client = await Client.connect(path, 4)
    assert await client.message() == m.EchoRequest()
    client.writer.write(encode(m.EchoReply(), 4))
    assert await client.message() == m.EchoRequest()
    assert await client.message() is None
    assert "it does not answer" in caplog.text


async def test_who_never_greets_is_not_waited_for(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    await switch.configure(controllers=(switch.controller("punix:br0.ctl", probe=0.1),))
    client = await Client.silent(switch.rundir / "br0.ctl", 4)
    await client.message()
    assert await client.message() is None
    assert "no hello came" in caplog.text


async def test_a_controller_that_never_reads_is_waited_for_and_others_go_on(
    switch: Switch, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it asked for waits, nothing more is read from it, and in the end it is closed."""
    monkeypatch.setattr("heliograph.control.channel._PATIENCE", 0.3)
    deaf = await Client.connect(switch.path, 4)
    deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
    request = encode(m.TableStatsRequest(), 4) + encode(m.EchoRequest(bytes(60_000)), 4)
    sent = 0
    for _ in range(200):
        deaf.writer.write(request)
        try:
            await asyncio.wait_for(deaf.writer.drain(), 0.05)
        except TimeoutError:
            break
        sent += len(request)
    assert sent < 5_000_000
    other = await Client.connect(switch.path, 4)
    assert await other.ask(FLOW) == []
    for _ in range(200):
        if len(switch.peers) == 1:
            break
        await asyncio.sleep(0.01)
    assert len(switch.peers) == 1
    assert "it read nothing for" in caplog.text
    await other.close()
    deaf.writer.transport.abort()


async def test_a_flood_of_refusals_is_not_one_of_words(
    switch: Switch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = await Client.connect(switch.path, 4)
    assert len(await client.ask(*[raw(4, 77)] * 500)) == 500
    await client.close()
    assert caplog.text.count("OFPBRC_BAD_TYPE") < 70
    assert "more of its messages were refused" in caplog.text


async def test_errors_of_bundles_name_the_message_at_fault(switch: Switch) -> None:
    client = await Client.connect(switch.path, 5)
    flags = m.BundleFlags.NONE
    overlap = replace(
        FLOW,
        flags=f.FlowFlags.CHECK_OVERLAP,
        priority=9,
        match=Match.of({"in_port": (1, 0xFFFF)}),
    )
    for message in (
        m.BundleControl(1, m.BundleAction.OPEN_REQUEST, flags),
        m.BundleAdd(1, flags, FLOW, 11),
        m.BundleAdd(1, flags, replace(FLOW, priority=9), 13),
        m.BundleAdd(1, flags, overlap, 14),
    ):
        xid = message.xid if isinstance(message, m.BundleAdd) else 1
        client.writer.write(encode(message, 5, xid))
    commit = m.BundleControl(1, m.BundleAction.COMMIT_REQUEST, flags)
    client.writer.write(encode(commit, 5, 15))
    opened, first, second = [await client.frame() for _ in range(3)]
    assert opened is not None
    assert first is not None
    assert second is not None
    assert (opened.type, first.type, second.type) == (33, 1, 1)
    assert (first.xid, second.xid) == (14, 15)
    assert first.data[8:12] == pack("!HH", 5, 3)  # OFPFMFC_OVERLAP
    assert second.data[8:12] == pack("!HH", 17, 13)  # OFPBFC_MSG_FAILED
    assert await switch.flows() == []
    await client.close()
