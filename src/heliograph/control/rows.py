# SPDX-License-Identifier: Apache-2.0
"""One row of Controller: what it makes of its bridge's connections, and what its columns say."""

import math
from collections.abc import Callable
from pathlib import Path

from heliograph.control.bridge import Bridge
from heliograph.control.channel import Channel
from heliograph.control.connector import Connector
from heliograph.control.listener import Listener
from heliograph.control.session import Session
from heliograph.control.subscriptions import Kind
from heliograph.control.targets import TargetError, parse
from heliograph.control.versions import spoken
from heliograph.control.wanted import ControllerStatus, WantedController
from heliograph.openflow.messages import Role

PROBE, _MAX_BACKOFF = 5.0, 8.0  # seconds, where the columns are empty
_ROLES = {Role.EQUAL: "other", Role.PRIMARY: "master", Role.SECONDARY: "slave"}
_IN_BAND = (
    "in-band control is not supported: the host's own network reaches the controller; "
    "set connection_mode=out-of-band"
)


def _seconds(milliseconds: int | None, default: float) -> float:
    return default if milliseconds is None else milliseconds / 1000


class Row:
    def __init__(
        self, wanted: WantedController, bridge: Bridge, rundir: Path, changed: Callable[[], None]
    ) -> None:
        self.wanted, self._bridge = wanted, bridge
        self.probe = _seconds(wanted.inactivity_probe, PROBE)
        self._problem = _IN_BAND if wanted.connection_mode == "in-band" else ""
        self._listener: Listener | None = None
        self.connector: Connector | None = None
        name = f"{bridge.wanted.name}<->{wanted.target}"
        try:
            target = parse(wanted.target, rundir, bridge.wanted.name)
        except TargetError as error:
            self._problem = str(error)
            return
        if target.listens:
            self._listener = Listener(name, target, self._session, changed)
        else:
            self.connector = Connector(
                name,
                target,
                self._session,
                max_delay=_seconds(wanted.max_backoff, _MAX_BACKOFF),
                changed=changed,
            )

    async def open(self) -> None:
        """Listen, if it is a row that listens and does not yet."""
        if self._listener is not None:
            await self._listener.open()

    def _session(self, channel: Channel, name: str) -> Session:
        rate = self.wanted.rate_limit or 0
        return Session(
            self._bridge,
            channel,
            name=name,
            versions=spoken(self._bridge.wanted.protocols),
            kind=Kind.PRIMARY if self.wanted.is_primary else Kind.SERVICE,
            probe=self.probe or None,
            enabled=self.wanted.enable_async,
            rate=rate,
            burst=self.wanted.burst_limit or math.ceil(rate / 4),
        )

    def status(self) -> ControllerStatus:
        sessions = []
        if self.connector is not None and self.connector.session:
            sessions = [self.connector.session]
        elif self._listener is not None:
            sessions = [s for s in self._listener.sessions if s.conversation]
        roles = [s.conversation.subscription.role for s in sessions if s.conversation]
        listening = self._listener.problem if self._listener else ""
        return ControllerStatus(
            is_connected=bool(sessions),
            role=_ROLES[roles[0]] if roles else None,
            status=self.connector.status() if self.connector else {},
            problem=self._problem or listening,
        )

    async def close(self) -> None:
        for end in (self._listener, self.connector):
            if end is not None:
                await end.close()
