# SPDX-License-Identifier: Apache-2.0
"""The database server: Unix sockets and the disk around service.py.

One thread does everything but the disk; a second one writes, syncs and compacts, in the order
it is told to, so that a slow disk delays transactions but nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import socket
import stat
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from heliograph.errors import AlreadyRunningError, HeliographError
from heliograph.ovsdb import ovs_schema
from heliograph.ovsdb.database import Commit, Database
from heliograph.ovsdb.errors import MalformedError, WireError
from heliograph.ovsdb.operations import Execution
from heliograph.ovsdb.service import Service
from heliograph.ovsdb.session import Session
from heliograph.ovsdb.storage import Log, Snapshot, StorageError, commit_record
from heliograph.ovsdb.wire import Splitter, encode

log = logging.getLogger(__name__)

MAX_CLIENTS = 500
_WRITE_BUFFER = 1 << 20  # bytes unread by a client after which it counts as slow


async def serve(
    rundir: Path,
    dbfile: Path | None,
    *,
    extra_sockets: Sequence[Path] = (),
    stop: asyncio.Event,
) -> None:
    """Serves RUNDIR/db.sock and `extra_sockets` until `stop` is set.

    With `dbfile` None the database is in memory only. Raises AlreadyRunningError if the file
    or a socket is in use, StorageError or HeliographError if one cannot be used.
    """
    rundir.mkdir(mode=0o750, parents=True, exist_ok=True)
    schema = ovs_schema.open_vswitch()
    loop = asyncio.get_running_loop()
    storage = None if dbfile is None else Log(dbfile, schema)
    paths = [rundir / "db.sock", *extra_sockets]
    with contextlib.ExitStack() as cleanup:
        if storage is not None:
            cleanup.callback(storage.close)
        disk = cleanup.enter_context(ThreadPoolExecutor(1, thread_name_prefix="ovsdb-disk"))
        if storage is None:
            database = Database(schema)
        else:
            database = await loop.run_in_executor(disk, storage.load)
        server = _Server(database, storage, disk)
        listeners = []
        for path in paths:
            await _refuse_live(path)
            listener = _listen(path)
            cleanup.callback(_unlink, path, path.stat().st_ino)
            listeners.append(
                await loop.create_unix_server(lambda: _Connection(server), sock=listener)
            )
        log.info("serving %s on %s", schema.name, ", ".join(map(str, paths)))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait((stopping, server.broken), return_when=asyncio.FIRST_COMPLETED)
            if server.broken.done():
                server.broken.result()
        finally:
            stopping.cancel()
            for listening in listeners:
                listening.close()
            await server.finish()


class _Server:
    """The service with its disk, and the timer for transactions that wait."""

    def __init__(self, database: Database, storage: Log | None, disk: ThreadPoolExecutor) -> None:
        self._storage = storage
        self._disk = disk
        self._database = database
        durable = None if storage is None else database.name
        self.service = Service([database, describe(database)], durable)
        self.connections: dict[Session, _Connection] = {}
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Future[None] | None = None
        self.broken: asyncio.Future[None] = self._loop.create_future()
        self.stopping = False
        self.throttled: set[_Connection] = set()

    def now(self) -> float:
        return self._loop.time()

    def step(self) -> None:
        """Carries out what has arrived, as far as the disk lets it."""
        while self._writing is None and (commits := self.service.run(self.now())):
            if records := self._records(commits):
                self._write(records)
            else:
                self.service.durable()  # only ephemeral columns changed
        self._set_timer()
        for connection in list(self.throttled):
            connection.throttle()

    def _records(self, commits: list[Commit]) -> list[bytes]:
        records = (commit_record(self._database.schema, commit) for commit in commits)
        return [record for record in records if record]

    def _write(self, records: list[bytes]) -> None:
        assert self._storage is not None
        append = functools.partial(self._storage.append, records)
        self._writing = self._loop.run_in_executor(self._disk, append)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._writing = None
        if writing.cancelled():
            return
        fault = writing.exception()
        if fault is None:
            self.service.durable()
            self._compact()
        elif isinstance(fault, StorageError):
            for session in self.service.failed(str(fault)):
                self.connections[session].abort()
        else:
            self.broken.set_exception(fault)  # a bug: end, rather than never answer again
            return
        self.step()

    def _compact(self) -> None:
        # Rows never change in place, so copies of the tables' dicts are a snapshot. Later
        # commits are appended by the same thread, after the compaction.
        storage = self._storage
        if storage is None or not storage.wants_compaction:
            return
        snapshot = {name: dict(table.rows) for name, table in self._database.tables.items()}
        self._disk.submit(_compact, storage, snapshot)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        deadline = self.service.deadline()
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self.step)

    async def finish(self) -> None:
        """Waits for the disk, answers what was acknowledged by it, closes all connections."""
        self.stopping = True
        if self._timer is not None:
            self._timer.cancel()
        for connection in self.connections.values():
            connection.throttle()
        while self._writing is not None:
            with contextlib.suppress(StorageError):
                await asyncio.shield(self._writing)
            await asyncio.sleep(0)
        for connection in list(self.connections.values()):
            connection.close()
        await asyncio.sleep(0)


def _compact(storage: Log, snapshot: Snapshot) -> None:
    try:
        storage.compact(snapshot)
    except StorageError as fault:
        log.warning("compaction failed, the log goes on growing: %s", fault)


class _Connection(asyncio.Protocol):
    """One client's socket."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self._splitter = Splitter()
        self._transport: asyncio.Transport | None = None
        self._session = Session(self._write)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.connections) >= MAX_CLIENTS:
            log.warning("refused a client: there are %d already", MAX_CLIENTS)
            self._transport.abort()
            return
        self._transport.set_write_buffer_limits(high=_WRITE_BUFFER)
        self._server.connections[self._session] = self
        self._server.service.connect(self._session)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._server.connections.pop(self._session, None) is not None:
            self._server.service.disconnect(self._session)
            self._server.throttled.discard(self)
            self._server.step()  # the locks it had may go to others

    def data_received(self, data: bytes) -> None:
        service = self._server.service
        if self._session not in service.sessions:
            return
        try:
            for message in self._splitter.feed(data):
                service.receive(self._session, message, self._server.now())
        except (WireError, MalformedError) as fault:
            log.warning("disconnected a client: %s", fault)
            self.abort()
            return
        self._server.step()
        self.throttle()

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause_writing(self) -> None:
        self._session.blocked = True
        self.throttle()

    def resume_writing(self) -> None:
        self._session.blocked = False
        self._server.service.flush()
        self._server.step()

    def throttle(self) -> None:
        """Reads on only when what the client asked so far has been carried out."""
        if self._transport is None or self._transport.is_closing():
            return
        idle = self._server.service.idle(self._session) and not self._session.blocked
        if idle and not self._server.stopping:
            self._transport.resume_reading()
            self._server.throttled.discard(self)
        else:
            self._transport.pause_reading()
            self._server.throttled.add(self)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def describe(database: Database) -> Database:
    """The `_Server` database, which tells clients what there is (ovsdb-server(7))."""
    server = Database(ovs_schema.server(), writable=True)
    for one in (database, server):
        operation = {
            "op": "insert",
            "table": "Database",
            "row": {
                "name": one.name,
                "model": "standalone",
                "connected": True,
                "leader": True,
                "schema": encode(one.schema.json).decode(),
            },
        }
        Execution(server, lambda name: False, 0.0).run([operation])
    server.writable = False
    return server


async def _refuse_live(path: Path) -> None:
    """Raises AlreadyRunningError if something answers on `path`."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise HeliographError(f"{path} is in the way: it is not a socket; move it")
    try:
        _, writer = await asyncio.open_unix_connection(str(path))
    except ConnectionRefusedError:
        return  # stale: its server is gone
    except OSError as fault:
        raise HeliographError(f"{path}: {fault.strerror}") from fault
    writer.close()
    raise AlreadyRunningError(f"another server answers on {path}")


def _listen(path: Path) -> socket.socket:
    """A listening socket that appears at `path` only now that it answers."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        hidden.unlink(missing_ok=True)
        listener.bind(str(hidden))
        hidden.chmod(0o660)
        listener.listen(128)
        hidden.replace(path)
    except OSError as fault:
        listener.close()
        hidden.unlink(missing_ok=True)
        raise HeliographError(f"{path}: {fault.strerror or fault}") from fault
    listener.setblocking(False)
    return listener


def _unlink(path: Path, inode: int) -> None:
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_ino == inode:  # not one that another server put in its place
            path.unlink()
