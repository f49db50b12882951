# SPDX-License-Identifier: Apache-2.0
"""One client of the server: its monitors, its locks, and what waits to be sent to it. No I/O.

The queue to a client that reads slowly stays bounded: the server stops reading its requests,
so no replies are added, and updates for a monitor that has one unsent are joined to it, so
that what waits is at most the difference between what the client knows and what is true.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from heliograph.ovsdb.database import Changes, Commit
from heliograph.ovsdb.errors import Json
from heliograph.ovsdb.monitor import NOTIFICATIONS, ZERO_TRANSACTION, Spec
from heliograph.ovsdb.wire import encode

MAX_OUTBOX = 1 << 20  # bytes of replies after which a client's further requests wait


@dataclass
class Monitor:
    """A running monitor; `name` is the <json-value> the client calls it by."""

    name: Json
    spec: Spec
    unsent: Update | None = None


@dataclass
class Update:
    """Changes that wait to be sent. `own` is false while `changes` is shared with others."""

    monitor: Monitor
    name: Json
    spec: Spec
    changes: Changes
    own: bool = False

    def join(self, changes: Changes) -> None:
        if not self.own:
            joined = Changes()
            joined.merge(self.changes)
            self.changes, self.own = joined, True
        self.changes.merge(changes)

    def encoded(self) -> bytes:
        """The whole notification; empty if the monitor sees nothing of the changes."""
        updates = self.spec.encoded(self.changes)
        if not updates:
            return b""
        params = encode(self.name)
        if self.spec.method == "monitor_cond_since":
            # No history is kept, so no transaction has an identifier to resume from.
            params += b',"' + ZERO_TRANSACTION.encode() + b'"'
        method = NOTIFICATIONS[self.spec.method].encode()
        head = b'{"id":null,"method":"' + method + b'","params":['
        return head + params + b"," + updates + b"]}"


@dataclass(frozen=True)
class Promise:
    """A reply that is true once its transaction is on disk, and what to say if that fails."""

    kept: bytes
    broken: bytes


class Session:
    """What the server knows of one client; `write` hands it bytes."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write
        self._outbox: deque[bytes | Promise | Update] = deque()
        self.blocked = False  # set while the client does not read
        self.monitors: dict[bytes, Monitor] = {}  # by the text of their names
        self.locks: set[str] = set()  # asked for and not given up
        self._outbox_bytes = 0

    @property
    def congested(self) -> bool:
        """True while so much waits to be sent that no more of its requests should be done."""
        return self.blocked or self._outbox_bytes > MAX_OUTBOX

    def send(self, message: Json) -> None:
        """Queues a reply or notification after all that is queued already."""
        text = encode(message)
        self._outbox.append(text)
        self._outbox_bytes += len(text)

    def reply(self, request: Json, result: Json) -> None:
        self.send({"id": request, "result": result, "error": None})

    def fail(self, request: Json, error: Json) -> None:
        # RFC 7047 section 4 (JSON-RPC 1.0): result is null if there is an error.
        self.send({"id": request, "result": None, "error": error})

    def promise(self, request: Json, result: Json, error: Json) -> None:
        """Queues `result`, which becomes `error` if the disk fails before it is sent."""
        promise = Promise(
            encode({"id": request, "result": result, "error": None}),
            encode({"id": request, "result": error, "error": None}),
        )
        self._outbox.append(promise)
        self._outbox_bytes += len(promise.kept)

    def notice(self, database: str, commit: Commit) -> None:
        """Queues what this client's monitors see of `commit`."""
        for monitor in self.monitors.values():
            if monitor.spec.database != database:
                continue
            if not any(table.name in commit.changes for table in monitor.spec.tables):
                continue
            if monitor.unsent is not None:
                monitor.unsent.join(commit.changes)
            else:
                monitor.unsent = Update(monitor, monitor.name, monitor.spec, commit.changes)
                self._outbox.append(monitor.unsent)

    def withdraw(self) -> bool:
        """Takes back what is queued about transactions that have been undone.

        False if that is impossible, as older updates of a slow client are joined to it: then
        the client must be disconnected, to begin anew.
        """
        if self.blocked and self._outbox:
            return False
        for monitor in self.monitors.values():
            monitor.unsent = None
        self._outbox = deque(
            item.broken if isinstance(item, Promise) else item
            for item in self._outbox
            if not isinstance(item, Update)
        )
        self._outbox_bytes = sum(len(item) for item in self._outbox if isinstance(item, bytes))
        return True

    def flush(self) -> None:
        """Writes what is queued, until the client's buffer is full."""
        while self._outbox and not self.blocked:
            item = self._outbox.popleft()
            if isinstance(item, Update):
                if item.monitor.unsent is item:
                    item.monitor.unsent = None
                text = item.encoded()
            else:
                text = item.kept if isinstance(item, Promise) else item
                self._outbox_bytes -= len(text)
            if text:
                self._write(text)
