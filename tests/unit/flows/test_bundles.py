# SPDX-License-Identifier: Apache-2.0
"""Bundles: one change or none, and the codes for their misuse."""

import pytest
from tests.unit.flows.mods import ONE, group, mod, port

from heliograph.flows.bundles import Bundles, CommitError, Committed
from heliograph.flows.tables import Tables
from heliograph.openflow.actions import Group, SetField
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.flows import FlowMod, GroupMod, PacketOut
from heliograph.openflow.messages import (
    BundleAction,
    BundleAdd,
    BundleControl,
    BundleFlags,
    PortMod,
)

OPEN, CLOSE = BundleAction.OPEN_REQUEST, BundleAction.CLOSE_REQUEST
FRAME = bytes(60)
COMMIT, DISCARD = BundleAction.COMMIT_REQUEST, BundleAction.DISCARD_REQUEST


class Session:
    def __init__(self) -> None:
        self.tables, self.bundles, self.xid = Tables(), Bundles(version=6), 0

    def control(
        self, action: BundleAction, flags: BundleFlags = BundleFlags.NONE
    ) -> Committed | None:
        return self.bundles.control(BundleControl(1, action, flags), self.tables, 0)

    def add(
        self,
        message: FlowMod | GroupMod | PortMod | PacketOut,
        flags: BundleFlags = BundleFlags.NONE,
    ) -> None:
        self.xid += 1
        self.bundles.add(BundleAdd(1, flags, message, self.xid))

    def refused(self, action: BundleAction, flags: BundleFlags = BundleFlags.NONE) -> str:
        with pytest.raises(OpenFlowError) as caught:
            self.control(action, flags)
        return caught.value.code.name

    def refused_add(
        self,
        message: FlowMod | GroupMod | PortMod | PacketOut,
        flags: BundleFlags = BundleFlags.NONE,
    ) -> str:
        with pytest.raises(OpenFlowError) as caught:
            self.add(message, flags)
        return caught.value.code.name


def test_a_bundle_is_one_change_in_the_order_of_its_messages() -> None:
    session = Session()
    session.control(OPEN)
    packet = PacketOut(actions=(Group(1),), data=FRAME)
    for message in (group(1, ONE), packet, mod(actions=(Group(1),)), mod(match=port(2))):
        session.add(message)
    assert not session.tables.flows
    session.control(CLOSE)
    done = session.control(COMMIT)
    assert done and done.packets == (packet,)
    assert (len(done.change.delta.rules), len(done.change.delta.groups)) == (2, 1)
    assert session.refused(COMMIT) == "OFPBFC_BAD_ID"


def test_the_message_at_fault_is_named_and_nothing_is_changed() -> None:
    session = Session()
    session.add(mod(match=port(1)))  # opens it, too
    session.add(PacketOut(actions=ONE, data=FRAME))
    session.add(mod(actions=(Group(8),)))
    with pytest.raises(CommitError) as caught:
        session.control(COMMIT)
    assert caught.value.code.name == "OFPBFC_MSG_FAILED"
    assert (caught.value.message.xid, caught.value.error.code.name) == (3, "OFPBAC_BAD_OUT_GROUP")
    assert not session.tables.flows
    assert session.refused(DISCARD) == "OFPBFC_BAD_ID"


def test_a_frame_to_be_sent_can_be_at_fault_too() -> None:
    """A group that comes later in the bundle is not there yet."""
    session = Session()
    session.add(mod())
    session.add(PacketOut(actions=(Group(1),), data=FRAME))
    session.add(group(1, ONE))
    with pytest.raises(CommitError) as caught:
        session.control(COMMIT)
    assert (caught.value.message.xid, caught.value.error.code.name) == (2, "OFPBAC_BAD_OUT_GROUP")
    assert not session.tables.flows and not session.tables.groups


def test_what_could_never_be_done_is_refused_when_it_is_added() -> None:
    session = Session()
    assert session.refused_add(mod(table_id=64)) == "OFPBRC_BAD_TABLE_ID"
    assert session.refused_add(group(0xFFFF_FF05)) == "OFPGMFC_INVALID_GROUP"
    assert session.refused_add(PortMod(port=1, address=2)) == "OFPBFC_MSG_UNSUP"
    undoable = PacketOut(actions=(SetField("nd_target", 1, 1), *ONE), data=FRAME)
    assert session.refused_add(undoable) == "OFPBAC_BAD_SET_ARGUMENT"
    session.add(mod())
    session.control(COMMIT)
    assert len(session.tables.flows) == 1


@pytest.mark.parametrize("action", [CLOSE, COMMIT, DISCARD])
def test_what_is_not_open_cannot_be_ended(action: BundleAction) -> None:
    assert Session().refused(action) == "OFPBFC_BAD_ID"


def test_misuse_discards_the_bundle() -> None:
    other = BundleFlags.ATOMIC
    session = Session()

    def begin(close: bool = False) -> None:
        session.control(OPEN)
        if close:
            session.control(CLOSE)

    begin()
    assert session.refused(OPEN) == "OFPBFC_BAD_ID"
    begin(close=True)
    assert session.refused(CLOSE) == "OFPBFC_BUNDLE_CLOSED"
    begin(close=True)
    assert session.refused_add(mod()) == "OFPBFC_BUNDLE_CLOSED"
    begin()
    assert session.refused_add(mod(), other) == "OFPBFC_BAD_FLAGS"
    begin()
    assert session.refused(CLOSE, other) == "OFPBFC_BAD_FLAGS"
    begin()
    assert session.refused(COMMIT, other) == "OFPBFC_BAD_FLAGS"
    begin()
    session.control(DISCARD)
    assert session.refused(BundleAction.OPEN_REPLY) == "OFPBFC_BAD_TYPE"


def test_what_a_connection_keeps_is_bounded_by_bytes() -> None:
    session, message = Session(), bytes(1 << 20)
    add = BundleAdd(1, BundleFlags.NONE, mod(), 1, message)
    for _ in range(31):
        session.bundles.add(add)
    session.bundles.add(BundleAdd(2, BundleFlags.NONE, mod(), 1))
    with pytest.raises(OpenFlowError) as caught:
        session.bundles.add(add)
    assert caught.value.code.name == "OFPBFC_MSG_TOO_MANY"
    for _ in range(31):  # the bundle is discarded
        session.bundles.add(add)
    assert session.control(DISCARD) is None
    for _ in range(31):
        session.bundles.add(add)
    assert session.control(COMMIT)
    assert session.bundles._bytes == 100


def test_a_connection_has_not_ever_more_bundles_open() -> None:
    session = Session()
    for number in range(64):
        session.bundles.control(BundleControl(number, OPEN, BundleFlags.NONE), session.tables, 0)
    assert session.control(CLOSE) is None
    with pytest.raises(OpenFlowError, match="64 bundles are open") as caught:
        session.bundles.add(BundleAdd(64, BundleFlags.NONE, mod(), 1))
    assert caught.value.code.name == "OFPBFC_OUT_OF_BUNDLES"
    assert session.control(COMMIT)
    session.bundles.add(BundleAdd(64, BundleFlags.NONE, mod(), 1))
