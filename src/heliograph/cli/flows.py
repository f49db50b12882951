# SPDX-License-Identifier: Apache-2.0
"""How many flows a bridge has, asked for as any OpenFlow client does: by RUNDIR/BRIDGE.mgmt."""

import socket
from pathlib import Path

from heliograph.openflow.actions import Output, Port
from heliograph.openflow.codec import Framer, decode, encode
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import (
    AggregateReply,
    AggregateRequest,
    FlowStatsReply,
    FlowStatsRequest,
)
from heliograph.openflow.match import ANYTHING
from heliograph.openflow.message import Message
from heliograph.openflow.messages import Hello, Version

PATIENCE = 2.0  # seconds
VERSIONS = (Version.V15, Version.V14, Version.V13, Version.V10)
_HELLO = 1  # its number; requests have others


def count(rundir: Path, bridge: str) -> int | None:
    """None if there is just the one flow that makes a bridge a learning switch, or if nobody
    answers."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(rundir / f"{bridge}.mgmt"))
            return _Client(connection).count()
    except (OSError, OpenFlowError):
        return None


class _Client:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._framer = Framer()
        self._connection.sendall(encode(Hello(frozenset(VERSIONS)), max(VERSIONS), _HELLO))
        theirs = self._receive(None)
        both = theirs.versions & set(VERSIONS) if isinstance(theirs, Hello) else ()
        if not both:
            raise OSError("no version in common")
        self._version = max(both)

    def count(self) -> int | None:
        nicira = self._version == Version.V10
        total = self._ask(AggregateRequest(nicira=nicira))
        if not isinstance(total, AggregateReply):
            return None
        if total.flows != 1:
            return total.flows
        only = self._ask(FlowStatsRequest(nicira=nicira))
        flows = list(only.entries) if isinstance(only, FlowStatsReply) else []
        default = all(
            (flow.table_id, flow.priority, flow.match) == (0, 0, ANYTHING)
            and flow.actions == (Output(Port.NORMAL),)
            for flow in flows
        )
        return None if default else 1

    def _ask(self, message: Message) -> Message:
        self._connection.sendall(encode(message, self._version, _HELLO + 1))
        return self._receive(_HELLO + 1)

    def _receive(self, number: int | None) -> Message:
        """The next message, or the answer to the request of that number."""
        while True:
            frame = self._framer.next()
            if frame is None:
                data = self._connection.recv(1 << 16)
                if not data:
                    raise OSError("the connection was closed")
                self._framer.feed(data)
            elif number is None or frame.xid == number:
                return decode(frame)
