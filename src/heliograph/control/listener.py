# SPDX-License-Identifier: Apache-2.0
"""Where controllers connect to: a socket, and the sessions that came of it."""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path

from heliograph.control.channel import Channel
from heliograph.control.session import Session
from heliograph.control.targets import Target

log = logging.getLogger(__name__)

_MOST = 250  # sessions
MakeSession = Callable[[Channel, str], Session]


class Listener:
    """`name`: for the log; `make` makes a session of each connection, `changed` is called for
    each that begins or ends."""

    def __init__(
        self, name: str, target: Target, make: MakeSession, changed: Callable[[], None]
    ) -> None:
        self._name, self._target, self._make = name, target, make
        self._changed = changed
        self._server: asyncio.Server | None = None
        self._inode = 0
        self._closed = False
        self._tasks: dict[asyncio.Task[None], Session] = {}
        self._count = 0
        self.problem = ""

    @property
    def sessions(self) -> list[Session]:
        return list(self._tasks.values())

    async def open(self) -> None:
        """Listen, if it does not yet; why it cannot is in `problem`."""
        if self._server is not None or self._closed:
            return
        try:
            if self._target.path is None:
                self._server = await asyncio.start_server(
                    self._accept, self._target.host or None, self._target.port
                )
            else:
                listening = _listen(self._target.path)
                self._inode = self._target.path.stat().st_ino
                self._server = await asyncio.start_unix_server(self._accept, sock=listening)
            self.problem = ""
        except (OSError, ValueError) as error:
            problem = f"{self._name} cannot listen: {getattr(error, 'strerror', None) or error}"
            if problem != self.problem:
                log.warning("%s", problem)
                self._changed()
            self.problem = problem
        if self._closed:  # meanwhile
            await self.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._count += 1
        name = f"{self._name}#{self._count}"
        if len(self._tasks) >= _MOST:
            log.warning("refused connection %s: there are %d already", name, _MOST)
            writer.transport.abort()
            return
        session = self._make(Channel(reader, writer), name)
        session.on_agreed = self._changed
        self._tasks[task] = session
        try:
            reason = await session.run()
            if reason:
                log.warning("closed connection %s: %s", name, reason)
        except asyncio.CancelledError:
            pass  # by close(); asyncio would call it unhandled
        except Exception:
            log.exception("closed connection %s for a fault of ours", name)
        finally:
            del self._tasks[task]
            self._changed()

    async def close(self) -> None:
        """End it with all its sessions, for good."""
        self._closed = True
        if self._server is not None:
            self._server.close()
            self._server = None
        path = self._target.path
        if path is not None:
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino == self._inode:  # not one that another put in its place
                    path.unlink()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _listen(path: Path) -> socket.socket:
    """A listening socket that appears at `path` only now that it answers. Raises OSError."""
    hidden = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
            raise OSError(f"{path} is in the way: it is not a socket; move it")
        hidden.unlink(missing_ok=True)
        listener.bind(str(hidden))
        hidden.chmod(0o660)
        listener.listen(128)
        hidden.replace(path)
    except (OSError, ValueError):
        listener.close()
        hidden.unlink(missing_ok=True)
        raise
    listener.setblocking(False)
    return listener
