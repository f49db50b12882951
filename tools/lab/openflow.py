# SPDX-License-Identifier: Apache-2.0
"""A controller for tests: one OpenFlow connection to a bridge, requests and answers one by one."""

import socket
from collections.abc import Callable
from pathlib import Path

from tools.lab.processes import PATIENCE

from heliograph.openflow.codec import Framer, decode, encode
from heliograph.openflow.errors import Code
from heliograph.openflow.flows import (
    FlowMod,
    FlowStats,
    FlowStatsReply,
    FlowStatsRequest,
    GroupDesc,
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
)
from heliograph.openflow.message import Message
from heliograph.openflow.messages import (
    BarrierReply,
    BarrierRequest,
    BundleAdd,
    BundleControl,
    BundleFlags,
    EchoReply,
    EchoRequest,
    Error,
    FlowModTableId,
    Hello,
    SetFlowFormat,
    Version,
)


class Controller:
    """Connected to `path` (RUNDIR/BRIDGE.mgmt), speaking one version of OpenFlow."""

    def __init__(self, path: Path, version: Version) -> None:
        self.version = version
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._framer = Framer()
        self._xid = 0
        self.unasked: list[Message] = []  # FlowRemoved and the like
        self._socket.sendall(encode(Hello(frozenset({version})), version))
        if version == Version.V10:
            self.send(FlowModTableId(True))
            self.send(SetFlowFormat(True))

    def close(self) -> None:
        self._socket.close()

    def send(self, message: Message) -> list[Message]:
        """What is answered up to the reply to a barrier behind it; errors are answers."""
        return self.send_raw(lambda xid: encode(message, self.version, xid))

    def send_raw(self, make: Callable[[int], bytes]) -> list[Message]:
        self._xid += 2
        barrier = encode(BarrierRequest(), self.version, self._xid + 1)
        self._socket.sendall(make(self._xid) + barrier)
        answers: list[Message] = []
        while True:
            frame = self._framer.next()
            if frame is None:
                data = self._socket.recv(1 << 20)
                assert data, "the switch closed the connection"
                self._framer.feed(data)
                continue
            message = decode(frame)
            match message:
                case BarrierReply() if frame.xid == self._xid + 1:
                    return answers
                case EchoRequest(payload):
                    reply = encode(EchoReply(payload), self.version, frame.xid)
                    self._socket.sendall(reply)
                case Hello():
                    pass
                case _ if frame.xid == self._xid:
                    answers.append(message)
                case _:
                    self.unasked.append(message)

    def change(self, message: Message) -> str:
        """The name of the error that it caused, or ""."""
        return self.outcome(self.send(message))

    def outcome(self, answers: list[Message]) -> str:
        errors = [a for a in answers if isinstance(a, Error)]
        assert len(errors) == len(answers) <= 1, answers
        return _name(errors[0], self.version) if errors else ""

    def bundle_add(self, bundle_id: int, flags: BundleFlags, mod: FlowMod | GroupMod) -> str:
        """As change(), for a message in a bundle."""
        answers = self.send_raw(
            lambda xid: encode(BundleAdd(bundle_id, flags, mod, xid), self.version, xid)
        )
        return self.outcome(answers)

    def control(self, control: BundleControl) -> str:
        """As change(); of a bundle that cannot be committed, the error of the message at fault."""
        self.unasked.clear()
        answers = self.send(control)
        # That message's error has that message's number, and comes first.
        errors = [a for a in (*self.unasked, *answers) if isinstance(a, Error)]
        return _name(errors[0], self.version) if errors else ""

    def flows(self, request: FlowStatsRequest | None = None) -> list[FlowStats]:
        nicira = self.version == Version.V10
        asked = request or FlowStatsRequest(nicira=nicira)
        entries: list[FlowStats] = []
        for reply in self.send(asked):
            assert isinstance(reply, FlowStatsReply), reply
            entries += reply.entries
        return entries

    def groups(self) -> list[GroupDesc]:
        entries: list[GroupDesc] = []
        for reply in self.send(GroupDescRequest()):
            assert isinstance(reply, GroupDescReply), reply
            entries += reply.entries
        return entries


def _name(error: Error, version: int) -> str:
    said = error.vendor, error.type, error.code
    return next((c.name for c in Code if c.number(version) == said), str(said))
