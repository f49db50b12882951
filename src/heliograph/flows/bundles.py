# SPDX-License-Identifier: Apache-2.0
"""The bundles of one connection: messages that are kept, and then done all together or not at all.

As in Open vSwitch every bundle is ordered and atomic whatever its flags say, an ADD opens what is
not open, and a bundle that was used wrongly is discarded. Changes of ports cannot be taken back,
so they are refused in a bundle.
"""

from dataclasses import dataclass, field

from heliograph.flows.change import Change
from heliograph.flows.checks import check_flow_mod, check_packet_out
from heliograph.flows.groups import check_group_mod
from heliograph.flows.tables import FailedAt, Tables
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod, PacketOut
from heliograph.openflow.messages import (
    BundleAction,
    BundleAdd,
    BundleControl,
    BundleFlags,
    PortMod,
)

_BUNDLES = 64  # of a connection, open at once
_BYTES = 32 << 20  # of messages in them
_EACH = 100  # counted for a message besides its bytes


@dataclass(slots=True)
class _Bundle:
    flags: BundleFlags
    closed: bool = False
    bytes: int = 0
    messages: list[BundleAdd] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    change: Change
    xids: tuple[int, ...]  # of its messages
    packets: tuple[PacketOut, ...] = ()  # to be sent once the change is in force


class CommitError(OpenFlowError):
    """OFPBFC_MSG_FAILED for the commit; `message` is answered with `error` before it."""

    def __init__(self, message: BundleAdd, error: OpenFlowError) -> None:
        super().__init__(Code.OFPBFC_MSG_FAILED, f"message {message.xid:#x} of a bundle: {error}")
        self.message, self.error = message, error


class Bundles:
    def __init__(self, version: int) -> None:
        self.version = version
        self._bundles: dict[int, _Bundle] = {}
        self._bytes = 0

    def add(self, add: BundleAdd) -> None:
        """Raises OpenFlowError for a message that could never be done, too; the bundle stays."""
        self._check(add)
        if add.bundle_id not in self._bundles:
            self._open(add.bundle_id, add.flags)
        bundle = self._bundles[add.bundle_id]
        if bundle.closed:
            self._misused(add.bundle_id, Code.OFPBFC_BUNDLE_CLOSED)
        self._check_flags(add.bundle_id, add.flags)
        size = len(add.raw) + _EACH
        if self._bytes + size > _BYTES:
            self._misused(add.bundle_id, Code.OFPBFC_MSG_TOO_MANY)
        self._bytes += size
        bundle.bytes += size
        bundle.messages.append(add)

    def _open(self, bundle_id: int, flags: BundleFlags) -> None:
        if len(self._bundles) >= _BUNDLES:
            raise OpenFlowError(
                Code.OFPBFC_OUT_OF_BUNDLES, f"{_BUNDLES} bundles are open: commit or discard some"
            )
        self._bundles[bundle_id] = _Bundle(flags)

    def _close(self, bundle_id: int) -> _Bundle:
        bundle = self._bundles.pop(bundle_id)
        self._bytes -= bundle.bytes
        return bundle

    def _check(self, add: BundleAdd) -> None:
        match add.message:
            case FlowMod() as mod:
                check_flow_mod(mod, self.version)
            case GroupMod() as mod:
                check_group_mod(mod)
            case PacketOut() as packet:
                check_packet_out(packet)
            case PortMod():
                raise OpenFlowError(Code.OFPBFC_MSG_UNSUP, "a bundle cannot change ports")

    def control(self, control: BundleControl, tables: Tables, now: int) -> Committed | None:
        """Answered, where it raises no OpenFlowError, by the reply to its request."""
        bundle_id = control.bundle_id
        match control.action:
            case BundleAction.OPEN_REQUEST:
                if bundle_id in self._bundles:
                    self._misused(bundle_id, Code.OFPBFC_BAD_ID)
                self._open(bundle_id, control.flags)
            case BundleAction.CLOSE_REQUEST:
                bundle = self._there(bundle_id)
                if bundle.closed:
                    self._misused(bundle_id, Code.OFPBFC_BUNDLE_CLOSED)
                self._check_flags(bundle_id, control.flags)
                bundle.closed = True
            case BundleAction.COMMIT_REQUEST:
                self._there(bundle_id)
                self._check_flags(bundle_id, control.flags)
                return self._commit(self._close(bundle_id), tables, now)
            case BundleAction.DISCARD_REQUEST:
                self._there(bundle_id)
                self._close(bundle_id)
            case _:
                raise OpenFlowError(Code.OFPBFC_BAD_TYPE, f"{control.action.name} to a switch")
        return None

    def _there(self, bundle_id: int) -> _Bundle:
        if bundle_id not in self._bundles:
            raise OpenFlowError(Code.OFPBFC_BAD_ID, f"bundle {bundle_id} is not open")
        return self._bundles[bundle_id]

    def _check_flags(self, bundle_id: int, flags: BundleFlags) -> None:
        if self._bundles[bundle_id].flags != flags:
            self._misused(bundle_id, Code.OFPBFC_BAD_FLAGS)

    def _misused(self, bundle_id: int, code: Code) -> None:
        self._close(bundle_id)
        raise OpenFlowError(code, f"bundle {bundle_id} is discarded")

    def _commit(self, bundle: _Bundle, tables: Tables, now: int) -> Committed:
        kept = [add.message for add in bundle.messages]
        messages = [m for m in kept if not isinstance(m, PortMod)]  # add() lets none in
        try:
            change = tables.change_all(messages, now, self.version)
        except FailedAt as failed:
            raise CommitError(bundle.messages[failed.position], failed.error) from failed
        xids = tuple(add.xid for add in bundle.messages)
        return Committed(change, xids, tuple(m for m in messages if isinstance(m, PacketOut)))
