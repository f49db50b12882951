# SPDX-License-Identifier: Apache-2.0
"""The server without sockets, disk or clock: databases, clients, and the order of things.

Requests of all clients stand in one queue. `run` carries them out until something must reach
the disk; then nothing more is carried out until `durable` says that it has. So one sync
serves every transaction that arrived during the one before it (group commit), and no client
ever sees, in a reply, an update or a select, anything that a crash could take back.
"""

from __future__ import annotations

import logging
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from heliograph.ovsdb import locks, monitor
from heliograph.ovsdb.database import Commit, Database
from heliograph.ovsdb.errors import Json, MalformedError, OvsdbError, WireError
from heliograph.ovsdb.operations import Execution, WaitAgainError
from heliograph.ovsdb.session import Monitor, Session
from heliograph.ovsdb.wire import encode

log = logging.getLogger(__name__)

MAX_MONITORS = 100  # of one client; ovs-vsctl and the IDL need two
MAX_WAITING = 100  # transactions of one client with a "wait" not satisfied


@dataclass(frozen=True)
class Request:
    """A request of a client; `started` is when it came, in monotonic seconds."""

    session: Session
    id: Json
    method: str
    params: list[Json]
    started: float


@dataclass(frozen=True)
class Waiting:
    """A transaction whose "wait" is not satisfied; `deadline` in monotonic seconds or None."""

    request: Request
    database: str
    table: str
    deadline: float | None


class Service:
    """All that the server does, told what arrives and asked what to do next."""

    def __init__(self, databases: Iterable[Database], durable_database: str | None) -> None:
        self.databases = {database.name: database for database in databases}
        self.sessions: dict[Session, None] = {}
        self.id = str(uuid.uuid4())
        self._durable_database = durable_database
        # Clients that have requests take turns, so that one with many delays nobody else.
        self._requests: dict[Session, deque[Request]] = {}
        self._turns: deque[Session] = deque()
        self._waiting: list[Waiting] = []
        self._locks = locks.Locks()
        self._syncing: list[Commit] = []

    # -- what the server tells ---------------------------------------------------------------

    def connect(self, session: Session) -> None:
        self.sessions[session] = None
        self._requests[session] = deque()

    def disconnect(self, session: Session) -> None:
        """Forgets a client: its requests, waiting transactions, monitors and locks."""
        self.sessions.pop(session, None)
        self._requests.pop(session, None)
        self._turns = deque(other for other in self._turns if other is not session)
        self._waiting = [w for w in self._waiting if w.request.session is not session]
        self._locks.forget(session)

    def receive(self, session: Session, message: dict[str, Json], now: float) -> None:
        """Takes one message from a client. Raises MalformedError or WireError if it is not
        JSON-RPC, or could not be answered."""
        method, params = message.get("method"), message.get("params")
        if "method" not in message and ("result" in message or "error" in message):
            return  # a reply, to an echo perhaps; nothing here waits for one
        if not isinstance(method, str) or not isinstance(params, list) or "id" not in message:
            raise MalformedError("a request has method, params and id")
        encode(message["id"])
        self._enqueue(Request(session, message["id"], method, params, now))

    def idle(self, session: Session) -> bool:
        """True if everything that `session` asked has been carried out."""
        return not self._requests.get(session)

    # -- what the server asks ----------------------------------------------------------------

    def run(self, now: float) -> list[Commit]:
        """Carries out what it can; returns commits to put on disk before `durable` is called.

        Without any, everything queued has been carried out and written to the clients.
        """
        if self._syncing:
            return []
        self._retry_expired(now)
        while self._turns:
            self._take_turns(now)
            if self._syncing:
                return list(self._syncing)
            self.flush()
        self.flush()
        return []

    def _take_turns(self, now: float) -> None:
        held: list[Session] = []
        while self._turns:
            session = self._turns.popleft()
            requests = self._requests[session]
            if session.congested:
                continue  # its turn comes back when something has been sent
            if self._syncing and requests[0].method not in _BATCHABLE:
                held.append(session)
                continue
            self._dispatch(requests.popleft(), now)
            if requests:
                self._turns.append(session)
        self._turns.extend(held)

    def durable(self) -> None:
        """The commits of the last `run` are on disk: their effects may be seen."""
        self._syncing.clear()
        self.flush()

    def failed(self, reason: str) -> list[Session]:
        """The commits of the last `run` could not be written: undoes them all.

        Returns the clients that must be disconnected since they cannot be told so.
        """
        assert self._durable_database is not None
        database = self.databases[self._durable_database]
        for commit in reversed(self._syncing):
            database.revert(commit)
        self._syncing.clear()
        log.error("the database could not be written, changes were refused: %s", reason)
        lost = [session for session in self.sessions if not session.withdraw()]
        self.flush()
        return lost

    def flush(self) -> None:
        """Writes to every client what it may see."""
        if not self._syncing:
            for session in self.sessions:
                session.flush()
                if self._requests[session] and not session.congested:
                    self._give_turn(session)

    def deadline(self) -> float | None:
        """When `run` must be called again at the latest, in monotonic seconds."""
        return min((w.deadline for w in self._waiting if w.deadline is not None), default=None)

    # -- requests ----------------------------------------------------------------------------

    def _dispatch(self, request: Request, now: float) -> None:
        session = request.session
        method = _METHODS.get(request.method)
        try:
            if method is None:
                session.fail(request.id, "unknown method")
            else:
                method(self, request, now)
        except OvsdbError as fault:
            session.fail(request.id, fault.to_json())
        except WireError as fault:
            session.fail(request.id, MalformedError(str(fault)).to_json())
        except Exception as bug:
            # The transaction has been undone, so the others need not suffer for our mistake.
            log.exception("a %s request met a bug in this server", request.method)
            session.fail(request.id, OvsdbError("internal error", repr(bug)).to_json())

    def _database(self, request: Request) -> Database:
        name = request.params[0] if request.params else None
        if not isinstance(name, str):
            raise MalformedError(
                f"{request.method} request params must begin with <db-name>", request.params
            )
        if name not in self.databases:
            raise OvsdbError(
                "unknown database",
                f"{request.method} request specifies unknown database {name}",
                request.params,
            )
        return self.databases[name]

    def _list_dbs(self, request: Request, now: float) -> None:
        request.session.reply(request.id, list(self.databases))

    def _get_schema(self, request: Request, now: float) -> None:
        request.session.reply(request.id, self._database(request).schema.json)

    def _get_server_id(self, request: Request, now: float) -> None:
        request.session.reply(request.id, self.id)

    def _set_db_change_aware(self, request: Request, now: float) -> None:
        # The databases served never change, so there is nothing to be aware of.
        if len(request.params) != 1 or not isinstance(request.params[0], bool):
            raise MalformedError("set_db_change_aware takes one boolean", request.params)
        request.session.reply(request.id, {})

    def _echo(self, request: Request, now: float) -> None:
        request.session.reply(request.id, request.params)  # RFC 7047 section 4.1.11

    def _convert(self, request: Request, now: float) -> None:
        raise OvsdbError("not supported", "the schema of this server is built in")

    def _transact(self, request: Request, now: float) -> None:
        database = self._database(request)
        # A microsecond for rounding: at its deadline a "wait" must find its time over.
        session, elapsed = request.session, (now - request.started) * 1000 + 0.001

        def holds(name: str) -> bool:
            return self._locks.owns(session, name)

        execution = Execution(database, holds, elapsed)
        try:
            outcome = execution.run(request.params[1:])
        except WaitAgainError as again:
            if sum(w.request.session is session for w in self._waiting) >= MAX_WAITING:
                raise OvsdbError(
                    "resources exhausted", f"{MAX_WAITING} transactions wait already"
                ) from None
            deadline = None if again.timeout is None else request.started + again.timeout / 1000
            self._waiting.append(Waiting(request, database.name, again.table, deadline))
            return
        if outcome.commit is None:
            self._promise(request, outcome.results)
            return
        if database.name == self._durable_database:
            self._syncing.append(outcome.commit)
        for watcher in self.sessions:
            watcher.notice(database.name, outcome.commit)
        # RFC 7047 section 4.1.6: the update for a transaction comes before its reply.
        self._promise(request, outcome.results)
        self._retry_changed(database.name, outcome.commit)

    def _promise(self, request: Request, results: list[Json]) -> None:
        fault = OvsdbError("I/O error", "the database could not be written; nothing was changed")
        error = [fault.to_json()] + [None] * max(0, len(request.params) - 2)
        request.session.promise(request.id, results, error)

    def _retry_changed(self, database: str, commit: Commit) -> None:
        still: list[Waiting] = []
        for waiting in self._waiting:
            if waiting.database == database and waiting.table in commit.changes:
                self._enqueue(waiting.request)
            else:
                still.append(waiting)
        self._waiting = still

    def _retry_expired(self, now: float) -> None:
        expired = [w for w in self._waiting if w.deadline is not None and w.deadline <= now]
        self._waiting = [w for w in self._waiting if w not in expired]
        for waiting in expired:
            self._enqueue(waiting.request)

    def _enqueue(self, request: Request) -> None:
        self._requests[request.session].append(request)
        self._give_turn(request.session)

    def _give_turn(self, session: Session) -> None:
        if session not in self._turns:
            self._turns.append(session)

    def _cancel(self, request: Request, now: float) -> None:
        # RFC 7047 section 4.1.4: cancel is a notification; the transaction gets the reply.
        # Only one whose "wait" is not satisfied can still be cancelled.
        for waiting in self._waiting:
            if (
                waiting.request.session is request.session
                and [waiting.request.id] == request.params
            ):
                self._waiting.remove(waiting)
                request.session.fail(waiting.request.id, "canceled")
                return

    # -- monitors ----------------------------------------------------------------------------

    def _monitor(self, request: Request, now: float) -> None:
        session, params = request.session, request.params
        database = self._database(request)
        most = 4 if request.method == "monitor_cond_since" else 3
        if not 3 <= len(params) <= most:
            raise MalformedError("invalid parameters", params)
        key = encode(params[1])
        if key in session.monitors:
            raise MalformedError("duplicate monitor ID", params[1])
        if len(session.monitors) >= MAX_MONITORS:
            raise OvsdbError(
                "resources exhausted", f"a client may have {MAX_MONITORS} monitors", params[1]
            )
        spec = monitor.parse(request.method, database, params[2])
        session.monitors[key] = Monitor(params[1], spec)
        rows = spec.initial(database)
        if request.method == "monitor_cond_since":
            # No history is kept: found is false and the rows are all that there are.
            rows = [False, monitor.ZERO_TRANSACTION, rows]
        session.reply(request.id, rows)

    def _monitor_cond_change(self, request: Request, now: float) -> None:
        session = request.session
        if len(request.params) != 3:
            raise MalformedError("invalid parameters", request.params)
        old_name, new_name, requests = request.params
        current = session.monitors.get(encode(old_name))
        if current is None:
            raise MalformedError("unknown monitor session", old_name)
        new_key = encode(new_name)
        if new_key != encode(old_name) and new_key in session.monitors:
            raise MalformedError("duplicate monitor ID", new_name)
        if current.spec.method == "monitor":
            raise MalformedError("the monitor has no conditions", old_name)
        database = self.databases[current.spec.database]
        spec = monitor.recondition(current.spec, database, requests)
        update = monitor.condition_update(current.spec, spec, database)
        del session.monitors[encode(old_name)]
        session.monitors[new_key] = Monitor(new_name, spec)
        if update:
            method = monitor.NOTIFICATIONS[spec.method]
            since = [monitor.ZERO_TRANSACTION] if method == "update3" else []
            session.send({"id": None, "method": method, "params": [new_name, *since, update]})
        session.reply(request.id, {})

    def _monitor_cancel(self, request: Request, now: float) -> None:
        if len(request.params) != 1:
            raise MalformedError("invalid parameters", request.params)
        if request.session.monitors.pop(encode(request.params[0]), None) is None:
            request.session.fail(request.id, "unknown monitor")
        else:
            request.session.reply(request.id, {})

    def _lock(self, request: Request, now: float) -> None:
        result = self._locks.request(request.session, request.method, request.params)
        request.session.reply(request.id, result)


_METHODS: dict[str, Callable[[Service, Request, float], None]] = {
    "list_dbs": Service._list_dbs,
    "get_schema": Service._get_schema,
    "get_server_id": Service._get_server_id,
    "set_db_change_aware": Service._set_db_change_aware,
    "echo": Service._echo,
    "convert": Service._convert,
    "transact": Service._transact,
    "cancel": Service._cancel,
    "monitor": Service._monitor,
    "monitor_cond": Service._monitor,
    "monitor_cond_since": Service._monitor,
    "monitor_cond_change": Service._monitor_cond_change,
    "monitor_cancel": Service._monitor_cancel,
    "lock": Service._lock,
    "steal": Service._lock,
    "unlock": Service._lock,
}
# What may be carried out after a commit that is not on disk yet: its effect can be taken back.
_BATCHABLE = {"transact", "echo", "cancel"}
