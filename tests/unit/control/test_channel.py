# SPDX-License-Identifier: Apache-2.0
"""Bytes of one connection: bounded, and failing with a sentence."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from heliograph.control.channel import Channel, ChannelError
from heliograph.openflow.codec import encode
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.messages import EchoRequest

ECHO = encode(EchoRequest(b"x"), 4, 5)


@contextlib.asynccontextmanager
async def ends(path: Path) -> AsyncIterator[tuple[Channel, asyncio.StreamWriter]]:
    """A channel, and the far end, which does not read."""
    made: asyncio.Queue[Channel] = asyncio.Queue()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.put_nowait(Channel(reader, writer))

    server = await asyncio.start_unix_server(accept, path / "socket")
    _reader, writer = await asyncio.open_unix_connection(path / "socket")
    writer.transport.pause_reading()  # type: ignore[attr-defined]
    channel = await made.get()
    yield channel, writer
    channel.close()
    writer.transport.abort()
    server.close()


async def test_messages_come_whole(tmp_path: Path) -> None:
    async with ends(tmp_path) as (channel, far):
        far.write(ECHO[:3])
        with pytest.raises(TimeoutError):
            await channel.receive(0.05)
        far.write(ECHO[3:] + ECHO)
        for _ in range(2):
            frame = await channel.receive()
            assert frame is not None
            assert frame.data == ECHO
        far.close()
        assert await channel.receive() is None
        with pytest.raises(ChannelError, match="closed"):
            for _ in range(3):
                await channel.send(bytes(1 << 20))


async def test_what_cannot_be_cut_into_messages(tmp_path: Path) -> None:
    async with ends(tmp_path) as (channel, far):
        far.write(bytes(8))
        with pytest.raises(OpenFlowError):
            await channel.receive()


async def test_a_reply_waits_for_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.control.channel._PATIENCE", 0.1)
    async with ends(tmp_path) as (channel, _far):
        sent = 0
        with pytest.raises(ChannelError, match="read nothing for"):
            while True:
                await channel.send(bytes(1 << 16))
                sent += 1 << 16
        assert sent < 1 << 20


async def test_frames_are_left_out_and_then_it_ends(tmp_path: Path) -> None:
    async with ends(tmp_path) as (channel, _far):
        for _ in range(100):
            channel.post(bytes(1 << 16), droppable=True)
        assert 70 < channel.left_out < 100
        for _ in range(600):
            channel.post(bytes(1 << 16))
        channel.post(bytes(1 << 16))
        with pytest.raises(ChannelError, match="it does not read, and 32 MiB for it are unsent"):
            await channel.receive()
        channel.post(ECHO)  # of no use, and no error


async def test_nobody_is_kept_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that says much at once gives others their turn, however short its own is."""
    monkeypatch.setattr("heliograph.control.channel._SLICE", 0.0)
    async with ends(tmp_path) as (channel, far):
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        other = asyncio.create_task(count())
        far.write(ECHO * 5000)
        await far.drain()
        for _ in range(5000):
            assert await channel.receive()
        other.cancel()
        assert turns > 4000


async def test_it_is_full_until_somebody_reads(tmp_path: Path) -> None:
    async with ends(tmp_path) as (channel, far):
        while not channel.is_full:
            channel.post(bytes(1 << 16))
        waiting = asyncio.create_task(channel.drain())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        end = far.get_extra_info("socket").fileno()
        while not waiting.done():
            with contextlib.suppress(BlockingIOError):
                os.read(end, 1 << 20)
            await asyncio.sleep(0)
        assert not channel.is_full


async def test_who_waits_is_told_that_it_ended(tmp_path: Path) -> None:
    async with ends(tmp_path) as (channel, _far):
        while not channel.is_full:
            channel.post(bytes(1 << 16))
        waiting = asyncio.create_task(channel.drain())
        await asyncio.sleep(0)
        channel.give_up("it is too slow")
        with pytest.raises(ChannelError, match="it is too slow"):
            await waiting
        with pytest.raises(ChannelError, match="it is too slow"):
            await channel.receive()
