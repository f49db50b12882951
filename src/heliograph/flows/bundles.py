# SPDX-License-Identifier: Apache-2.0
"""The bundles of one connection: messages that are kept, and then done all together or not at all.

As in Open vSwitch every bundle is ordered and atomic whatever its flags say, an ADD opens what is
not open, and a bundle that was used wrongly is discarded. Changes of ports cannot be taken back,
so they are refused in a bundle.
"""

from dataclasses import dataclass, field

from heliograph.flows.change import Change
from heliograph.flows.checks import check_flow_mod, check_unmatched
from heliograph.flows.groups import check_group_mod
from heliograph.flows.tables import FailedAt, Tables
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod, PacketOut
from heliograph.openflow.messages import BundleAction, BundleAdd, BundleControl, BundleFlags

_MOST = 100_000  # messages, of all bundles of a connection


@dataclass(slots=True)
class _Bundle:
    flags: BundleFlags
    closed: bool = False
    messages: list[BundleAdd] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Committed:
    change: Change
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

    def add(self, add: BundleAdd) -> None:
        """Raises OpenFlowError for a message that could never be done, too; the bundle stays."""
        self._check(add)
        bundle = self._bundles.setdefault(add.bundle_id, _Bundle(add.flags))
        if bundle.closed:
            self._misused(add.bundle_id, Code.OFPBFC_BUNDLE_CLOSED)
        self._check_flags(add.bundle_id, add.flags)
        if sum(len(b.messages) for b in self._bundles.values()) >= _MOST:
            self._misused(add.bundle_id, Code.OFPBFC_MSG_TOO_MANY)
        bundle.messages.append(add)

    def _check(self, add: BundleAdd) -> None:
        match add.message:
            case FlowMod() as mod:
                check_flow_mod(mod, self.version)
            case GroupMod() as mod:
                check_group_mod(mod)
            case PacketOut(actions=actions):
                check_unmatched(actions)
            case _:
                raise OpenFlowError(Code.OFPBFC_MSG_UNSUP, "a bundle cannot change ports")

    def control(self, control: BundleControl, tables: Tables, now: int) -> Committed | None:
        """Answered, where it raises no OpenFlowError, by the reply to its request."""
        bundle_id = control.bundle_id
        match control.action:
            case BundleAction.OPEN_REQUEST:
                if bundle_id in self._bundles:
                    self._misused(bundle_id, Code.OFPBFC_BAD_ID)
                self._bundles[bundle_id] = _Bundle(control.flags)
            case BundleAction.CLOSE_REQUEST:
                bundle = self._there(bundle_id)
                if bundle.closed:
                    self._misused(bundle_id, Code.OFPBFC_BUNDLE_CLOSED)
                self._check_flags(bundle_id, control.flags)
                bundle.closed = True
            case BundleAction.COMMIT_REQUEST:
                self._there(bundle_id)
                self._check_flags(bundle_id, control.flags)
                return self._commit(self._bundles.pop(bundle_id), tables, now)
            case BundleAction.DISCARD_REQUEST:
                self._there(bundle_id)
                del self._bundles[bundle_id]
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
        del self._bundles[bundle_id]
        raise OpenFlowError(code, f"bundle {bundle_id} is discarded")

    def _commit(self, bundle: _Bundle, tables: Tables, now: int) -> Committed:
        kept = bundle.messages
        mods = [(a, a.message) for a in kept if isinstance(a.message, FlowMod | GroupMod)]
        packets = [a.message for a in kept if isinstance(a.message, PacketOut)]
        try:
            change = tables.change_all([message for _, message in mods], now, self.version)
        except FailedAt as failed:
            raise CommitError(mods[failed.position][0], failed.error) from failed
        return Committed(change, tuple(packets))
