# SPDX-License-Identifier: Apache-2.0
"""A controller that the switch connects to, again and again."""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

from heliograph.control.channel import Channel
from heliograph.control.session import Session
from heliograph.control.targets import Target

log = logging.getLogger(__name__)

_FIRST_DELAY = 1.0  # seconds
_CONNECTING = 5.0  # seconds that a connection may take to be made
MakeSession = Callable[[Channel, str], Session]


def _words(error: OSError) -> str:
    """As the system says it; asyncio has its own words."""
    if error.errno is None or isinstance(error, socket.gaierror):
        return error.strerror or str(error)
    return os.strerror(error.errno)


class Connector:
    """`max_delay`: seconds between two attempts at most. `changed` is called for each news."""

    def __init__(
        self,
        name: str,
        target: Target,
        make: MakeSession,
        *,
        max_delay: float,
        changed: Callable[[], None],
    ) -> None:
        self.name = name
        self._target, self._make, self._changed = target, make, changed
        self._max_delay = max_delay
        self._session: Session | None = None
        self._state = "VOID"
        self._last_error = ""
        self._connected_at: float | None = None
        self._lost_at: float | None = None
        self._reached_at = time.monotonic()
        self._task = asyncio.create_task(self._run())

    @property
    def session(self) -> Session | None:
        """The one that has agreed on a version."""
        session = self._session
        return session if session is not None and session.conversation is not None else None

    @property
    def unreachable(self) -> float:
        """Seconds since there was a session."""
        return 0 if self.session else time.monotonic() - self._reached_at

    def status(self) -> dict[str, str]:
        now = time.monotonic()
        said = {"state": "ACTIVE" if self.session else self._state}
        if self._last_error:
            said["last_error"] = self._last_error
        for name, at in (("connect", self._connected_at), ("disconnect", self._lost_at)):
            if at is not None:
                said[f"sec_since_{name}"] = str(int(now - at))
        return said

    async def _run(self) -> None:
        delay = _FIRST_DELAY
        while True:
            self._enter("CONNECTING")
            try:
                async with asyncio.timeout(_CONNECTING):
                    reader, writer = await self._connect()
            except TimeoutError:
                self._failed("Connection timed out")
            except OSError as error:
                self._failed(_words(error))
            except ValueError as error:  # what the system will not even try
                self._failed(str(error))
            else:
                if await self._serve(Channel(reader, writer)):
                    delay = _FIRST_DELAY
            self._enter("BACKOFF")
            await asyncio.sleep(min(delay, self._max_delay))
            delay = min(2 * delay, self._max_delay)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.path is not None:
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.host, self._target.port)

    async def _serve(self, channel: Channel) -> bool:
        """One connection; whether the peer was a controller indeed."""
        session = self._session = self._make(channel, self.name)
        session.on_agreed = self._agreed
        try:
            reason = await session.run()
        except Exception:
            log.exception("%s: closed for a fault of ours", self.name)
            reason = "a fault of the switch"
        finally:
            self._session = None
        agreed = session.conversation is not None
        if agreed:
            self._lost_at = self._reached_at = time.monotonic()
        self._failed(reason or "End of file")
        return agreed

    def _agreed(self) -> None:
        self._connected_at = time.monotonic()
        self._last_error = ""
        log.info("%s: connected", self.name)
        self._changed()

    def _failed(self, reason: str) -> None:
        if reason != self._last_error:  # not with each attempt
            log.warning("%s: %s", self.name, reason)
        self._last_error = reason

    def _enter(self, state: str) -> None:
        self._state = state
        self._changed()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
