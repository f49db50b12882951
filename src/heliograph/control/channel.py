# SPDX-License-Identifier: Apache-2.0
"""One connection's bytes: messages in, messages out, and never more memory than a bound.

Replies wait until the peer reads, and meanwhile nothing more is read from it. What it is told
unasked cannot wait: frames for controllers are left out, and counted, while much is unsent; of
anything else it must not miss a message, so when too much of that is unsent the connection ends.
"""

import asyncio

from heliograph.openflow.codec import Frame, Framer

_READ = 1 << 16
_FULL = 1 << 18  # bytes unsent above which a reply waits
_MUCH = 1 << 20  # ... frames for controllers are left out
_TOO_MUCH = 1 << 25  # ... the connection ends
_PATIENCE = 60.0  # seconds that a reply waits
_SLICE = 0.005  # seconds after which others have their turn


class ChannelError(Exception):
    """The connection is of no more use; says why."""


class Channel:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._transport = writer.transport
        self._transport.set_write_buffer_limits(high=_FULL)
        self._framer = Framer()
        self._loop = asyncio.get_running_loop()
        self._turn = self._loop.time()
        self._failure = ""
        self.left_out = 0  # frames for controllers

    async def receive(self, patience: float | None = None) -> Frame | None:
        """The next message; None when the peer has closed.

        Raises TimeoutError when none comes within `patience` seconds, ChannelError when the
        connection fails, OpenFlowError when what came cannot be messages.
        """
        while (frame := self._framer.next()) is None:
            try:
                data = await self._read(patience)
            except OSError as error:
                if isinstance(error, TimeoutError) and error.errno is None:
                    raise
                raise ChannelError(self._failure or error.strerror or str(error)) from error
            if self._failure:
                raise ChannelError(self._failure)
            if not data:
                return None
            self._framer.feed(data)
            self._turn = self._loop.time()
        await self.breathe()
        return frame

    async def _read(self, patience: float | None) -> bytes:
        if patience is None:
            return await self._reader.read(_READ)
        async with asyncio.timeout(patience):
            return await self._reader.read(_READ)

    async def breathe(self) -> None:
        """Let others have their turn, if this connection had its own."""
        if self._loop.time() - self._turn > _SLICE:
            await asyncio.sleep(0)
            self._turn = self._loop.time()

    async def send(self, data: bytes) -> None:
        """Raises ChannelError when the connection fails, or the peer does not read."""
        self._check_open()
        self._writer.write(data)
        if self.is_full:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await self._writer.drain()
            except OSError as error:
                if isinstance(error, TimeoutError) and error.errno is None:
                    raise ChannelError(f"it read nothing for {_PATIENCE:.0f} s") from error
                raise ChannelError(self._failure or error.strerror or str(error)) from error
        await self.breathe()

    @property
    def is_full(self) -> bool:
        return self._transport.get_write_buffer_size() > _FULL

    async def drain(self) -> None:
        """Wait, however long, until it is no longer full. Raises ChannelError as send() does."""
        try:
            await self._writer.drain()
        except OSError as error:
            raise ChannelError(self._failure or error.strerror or str(error)) from error
        self._check_open()
        await self.breathe()

    def _check_open(self) -> None:
        if self._transport.is_closing():
            raise ChannelError(self._failure or "the connection is closed")

    def post(self, data: bytes, *, droppable: bool = False) -> None:
        """Send without waiting, unless it is left out; what fails is for receive() to tell."""
        unsent = self._transport.get_write_buffer_size()
        if droppable and unsent > _MUCH:
            self.left_out += 1
        elif unsent > _TOO_MUCH:
            self.give_up(f"it does not read, and {unsent >> 20} MiB for it are unsent")
        elif not self._transport.is_closing():
            self._writer.write(data)

    def give_up(self, why: str) -> None:
        """End the connection at once; receive() tells why."""
        self._failure = why
        self._transport.abort()

    def close(self) -> None:
        """What is unsent is sent if the peer takes it at once."""
        if self.is_full:
            self._transport.abort()
        self._writer.close()
