# SPDX-License-Identifier: Apache-2.0
"""A client of any OVSDB server (RFC 7047 section 4), with asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence

from heliograph.errors import HeliographError
from heliograph.ovsdb.errors import Json, OvsdbError, TransactionError, WireError
from heliograph.ovsdb.replica import Replica
from heliograph.ovsdb.schema import Schema
from heliograph.ovsdb.wire import Splitter, encode

log = logging.getLogger(__name__)

_READ = 1 << 18
PROBE_INTERVAL = 10.0  # seconds without a word after which the server is asked for one
# A server's message may be the whole of a large database; it is trusted more than a client.
_MAX_REPLY = 1 << 30


class Client:
    """One connection. `closed` is done when it is lost; it never holds an exception."""

    def __init__(
        self, remote: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.remote = remote
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._reader = reader
        self._writer = writer
        self._ids = itertools.count(1)
        self._pending: dict[int, tuple[asyncio.Future[Json], Callable[[Json], Json]]] = {}
        self._monitors: dict[str, Callable[[Json], None]] = {}
        self._schemas: dict[str, Schema] = {}
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, remote: str, *, timeout: float | None = None) -> Client:
        """Connects to "unix:PATH" or "tcp:HOST:PORT" within `timeout` seconds.

        Raises HeliographError naming the remote.
        """
        kind, _, address = remote.partition(":")
        try:
            async with asyncio.timeout(timeout):
                if kind == "unix":
                    reader, writer = await asyncio.open_unix_connection(address)
                elif kind == "tcp":
                    host, _, port = address.rpartition(":")
                    reader, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                else:
                    raise HeliographError(f"{remote}: a remote is unix:PATH or tcp:HOST:PORT")
        except TimeoutError:
            raise HeliographError(f"{remote}: no connection within {timeout} s") from None
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or fault
            raise HeliographError(f"{remote}: database connection failed ({reason})") from fault
        return cls(remote, reader, writer)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def request(
        self, method: str, params: list[Json], take: Callable[[Json], Json] = lambda result: result
    ) -> Json:
        """One request's result, handed to `take` before any later message is looked at.

        Raises OvsdbError for an error reply, HeliographError when the connection is lost.
        """
        if self.closed.done():
            raise HeliographError(f"{self.remote}: the connection is closed")
        number = next(self._ids)
        reply: asyncio.Future[Json] = asyncio.get_running_loop().create_future()
        self._pending[number] = (reply, take)
        try:
            self._writer.write(encode({"method": method, "params": params, "id": number}))
            await self._drain()
            return await reply
        finally:
            self._pending.pop(number, None)

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):  # the reader notices too, and says why
            await self._writer.drain()

    async def get_schema(self, database: str = "Open_vSwitch") -> Schema:
        """The schema of a database, asked for once."""
        if database not in self._schemas:
            self._schemas[database] = Schema(await self.request("get_schema", [database]))
        return self._schemas[database]

    async def transact(
        self, operations: Sequence[Json], database: str = "Open_vSwitch"
    ) -> list[Json]:
        """The results of the operations, one each (RFC 7047 section 4.1.3).

        Raises TransactionError if any is an error: then nothing was changed.
        """
        results: list[Json] = await self.request("transact", [database, *operations])
        for index, result in enumerate(results):
            if isinstance(result, dict) and "error" in result:
                raise TransactionError(result["error"], result.get("details", ""), index)
        return results

    async def monitor(
        self,
        tables: Mapping[str, Sequence[str]] | None,
        on_update: Callable[[], None],
        database: str = "Open_vSwitch",
    ) -> Replica:
        """A copy of some columns of some tables, or of all for None, kept current from now on.

        `on_update` is called soon after each change of it, not for what it begins with.
        """
        schema = await self.get_schema(database)
        if tables is None:
            columns = {name: tuple(table.columns) for name, table in schema.tables.items()}
        else:
            columns = {name: tuple(wanted) for name, wanted in tables.items()}
        replica = Replica(schema, columns)
        requests = {name: [{"columns": list(wanted)}] for name, wanted in columns.items()}
        name = f"monitor-{next(self._ids)}"

        loop = asyncio.get_running_loop()

        def begin(apply: Callable[[Json], None], updates: Json) -> Replica:
            def update(later: Json) -> None:
                apply(later)
                # Not at once: an update may be right behind the reply, and whoever called
                # `monitor` must have the replica before hearing of a change of it.
                loop.call_soon(on_update)

            apply(updates)
            self._monitors[name] = update
            return replica

        params = [database, name, requests]
        try:
            await self.request("monitor_cond", params, functools.partial(begin, replica.apply))
        except OvsdbError as fault:
            if fault.tag != "unknown method":
                raise
            start = functools.partial(begin, replica.apply_monitor)
            await self.request("monitor", params, start)
        return replica

    async def close(self) -> None:
        """Closes the connection; requests under way fail."""
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _read(self) -> None:
        splitter = Splitter(_MAX_REPLY)
        reason = "the server closed the connection"
        probed = False
        try:
            while True:
                try:
                    # Not wait_for: one that is cancelled just when it ends goes on (Python 3.11).
                    async with asyncio.timeout(PROBE_INTERVAL):
                        data = await self._reader.read(_READ)
                except TimeoutError:
                    if probed:
                        reason = f"the server has not answered for {PROBE_INTERVAL} s"
                        return
                    probed = True  # RFC 7047 section 4.1.11: echo tells whether the peer lives
                    self._writer.write(encode({"method": "echo", "params": [], "id": "probe"}))
                    continue
                if not data:
                    return
                probed = False
                for message in splitter.feed(data):
                    self._receive(message)
        except asyncio.CancelledError:
            reason = "the connection was closed"
        except (OSError, WireError) as fault:
            reason = str(fault)
        except Exception:
            # What a server says does not fit what it said before.
            log.exception("%s: cannot go on with what the server sent", self.remote)
            reason = "the server sent what does not fit"
        finally:
            self._lose(reason)

    def _lose(self, reason: str) -> None:
        self._writer.close()
        if not self.closed.done():
            self.closed.set_result(None)
        for reply, _ in self._pending.values():
            if not reply.done():
                reply.set_exception(HeliographError(f"{self.remote}: {reason}"))

    def _receive(self, message: dict[str, Json]) -> None:
        method, params = message.get("method"), message.get("params")
        if method is None:
            self._take_reply(message)
        elif method == "echo":
            self._writer.write(encode({"result": params, "error": None, "id": message["id"]}))
        elif method in ("update", "update2") and isinstance(params, list):
            self._monitors[params[0]](params[1])

    def _take_reply(self, message: dict[str, Json]) -> None:
        number = message.get("id")
        pending = self._pending.get(number) if isinstance(number, int) else None
        if pending is None or pending[0].done():
            return  # the answer to a probe, or to a request that was given up
        reply, take = pending
        error = message.get("error")
        if error is None:
            reply.set_result(take(message.get("result")))
        elif isinstance(error, dict):
            reply.set_exception(OvsdbError(str(error.get("error")), str(error.get("details", ""))))
        else:
            reply.set_exception(OvsdbError(str(error), ""))
