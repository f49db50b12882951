# SPDX-License-Identifier: Apache-2.0
"""Advisory locks (RFC 7047 sections 4.1.8 to 4.1.10)."""

from __future__ import annotations

from heliograph.ovsdb.errors import Json, MalformedError
from heliograph.ovsdb.session import Session
from heliograph.ovsdb.types import is_identifier


class Locks:
    """Who owns each lock and who waits for it."""

    def __init__(self) -> None:
        self._queues: dict[str, list[Session]] = {}  # the first is the owner

    def owns(self, session: Session, name: str) -> bool:
        return self._queues.get(name, [None])[0] is session

    def request(self, session: Session, method: str, params: list[Json]) -> Json:
        """Carries out lock, steal or unlock and returns its result. Raises MalformedError."""
        if len(params) != 1 or not is_identifier(params[0]):
            raise MalformedError(f"{method} request params must be <id>", params)
        name: str = params[0]
        if method == "unlock":
            if name not in session.locks:
                raise MalformedError('"unlock" without "lock" or "steal"', params)
            session.locks.discard(name)
            self._leave(session, name)
            return {}
        if name in session.locks:
            raise MalformedError(f'must issue "unlock" before new "{method}"', params)
        session.locks.add(name)
        queue = self._queues.setdefault(name, [])
        if method == "lock":
            queue.append(session)
        else:
            if queue:
                # RFC 7047 section 4.1.8: the owner loses the lock. As in ovsdb-server it is
                # then the first to wait for it, unless it gives it up.
                _notify(queue[0], "stolen", name)
            queue.insert(0, session)
        return {"locked": queue[0] is session}

    def forget(self, session: Session) -> None:
        """Gives up every lock of a client that is gone."""
        for name in session.locks:
            self._leave(session, name)
        session.locks.clear()

    def _leave(self, session: Session, name: str) -> None:
        queue = self._queues[name]
        owner = queue[0] is session
        queue.remove(session)
        if not queue:
            del self._queues[name]
        elif owner:
            _notify(queue[0], "locked", name)


def _notify(session: Session, method: str, name: str) -> None:
    session.send({"id": None, "method": method, "params": [name]})
