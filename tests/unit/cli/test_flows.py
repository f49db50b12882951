# SPDX-License-Identifier: Apache-2.0
"""How many flows a bridge has, from a bridge that is played."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from heliograph.cli.flows import count
from heliograph.openflow.actions import Actions, Output, Port
from heliograph.openflow.codec import Framer, decode, encode
from heliograph.openflow.flows import (
    AggregateReply,
    AggregateRequest,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
)
from heliograph.openflow.match import ANYTHING
from heliograph.openflow.message import Message
from heliograph.openflow.messages import EchoRequest, Hello, Version


class Bridge:
    def __init__(self, version: Version, flows: Sequence[Actions]) -> None:
        self.version, self.flows = version, flows

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode(Hello(frozenset({self.version})), self.version, 7))
        writer.write(encode(EchoRequest(b"x"), self.version, 8))
        framer = Framer()
        while data := await reader.read(4096):
            framer.feed(data)
            while frame := framer.next():
                answer = self.answer(decode(frame))
                if answer:
                    writer.write(encode(answer, self.version, frame.xid))
        writer.close()

    def answer(self, message: Message) -> Message | None:
        nicira = self.version == Version.V10
        if isinstance(message, AggregateRequest):
            return AggregateReply(0, 0, len(self.flows), nicira)
        if isinstance(message, FlowStatsRequest):
            entries = (
                FlowStats(table_id=0, priority=0, match=ANYTHING, actions=actions)
                for actions in self.flows
            )
            return FlowStatsReply(tuple(entries), nicira)
        return None


@pytest.mark.parametrize("version", [Version.V10, Version.V13, Version.V15])
@pytest.mark.parametrize(
    ("flows", "expected"),
    [
        ([(Output(Port.NORMAL),)], None),
        ([(Output(7),)], 1),
        ([], 0),
        ([(), (), ()], 3),
    ],
)
async def test_flows_are_counted_but_for_the_one_that_was_there(
    tmp_path: Path, version: Version, flows: list[Actions], expected: int | None
) -> None:
    server = await asyncio.start_unix_server(Bridge(version, flows).serve, tmp_path / "br0.mgmt")
    async with server:
        assert await asyncio.to_thread(count, tmp_path, "br0") == expected


async def test_who_closes_or_is_not_there_tells_nothing(tmp_path: Path) -> None:
    assert count(tmp_path, "br0") is None

    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_unix_server(close, tmp_path / "br0.mgmt"):
        assert await asyncio.to_thread(count, tmp_path, "br0") is None
