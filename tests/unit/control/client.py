# SPDX-License-Identifier: Apache-2.0
"""A controller that says what a test wants, in the loop of the service."""

import asyncio
from pathlib import Path
from typing import Self

from heliograph.openflow.codec import Frame, Framer, decode, encode
from heliograph.openflow.errors import Code
from heliograph.openflow.message import Message
from heliograph.openflow.messages import BarrierReply, BarrierRequest, Error, Hello


def error_name(error: Error, version: int) -> str:
    said = error.vendor, error.type, error.code
    return next((c.name for c in Code if c.number(version) == said), str(said))


class Client:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, version: int
    ) -> None:
        self.reader, self.writer, self.version = reader, writer, version
        self.framer = Framer()
        self._xid = 0

    @classmethod
    async def silent(cls, path: Path, version: int = 1) -> Self:
        """Connected, and nothing said."""
        return cls(*await asyncio.open_unix_connection(path), version)

    @classmethod
    async def connect(cls, path: Path, version: int = 1) -> Self:
        client = await cls.silent(path, version)
        await client.greet()
        return client

    async def greet(self) -> None:
        self.writer.write(encode(Hello(frozenset({self.version})), self.version))
        frame = await self.frame()
        assert frame is not None
        assert isinstance(decode(frame), Hello)

    async def frame(self) -> Frame | None:
        """None: closed."""
        while (frame := self.framer.next()) is None:
            try:
                data = await asyncio.wait_for(self.reader.read(1 << 16), 10)
            except ConnectionError:
                return None
            if not data:
                return None
            self.framer.feed(data)
        return frame

    async def message(self) -> Message | str | None:
        """The next, an error by its name."""
        frame = await self.frame()
        if frame is None:
            return None
        said = decode(frame)
        return error_name(said, frame.version) if isinstance(said, Error) else said

    async def ask(self, *messages: Message | bytes) -> list[Message | str | None]:
        """All that comes until a barrier behind the messages is answered."""
        for message in messages:
            self._xid += 1
            raw = isinstance(message, bytes)
            self.writer.write(
                message if raw else encode(message, self.version, self._xid)  # type: ignore[arg-type]
            )
        self.writer.write(encode(BarrierRequest(), self.version, 0xBA))
        said: list[Message | str | None] = []
        while (answer := await self.message()) is not None:
            if isinstance(answer, BarrierReply):
                return said
            said.append(answer)
        return [*said, None]

    async def close(self) -> None:
        self.writer.close()
        await asyncio.sleep(0.02)
