# SPDX-License-Identifier: Apache-2.0
"""What is made of a recorded event's bytes."""

import struct
from typing import Any

from heliograph.kernel import layouts, recorder
from heliograph.kernel.layouts import EventKind, OpCode, Reason


def event(kind: EventKind, **fields: Any) -> recorder.Event:
    empty = layouts.Event.unpack(bytes(layouts.EVENT.size))
    return recorder._event(empty._replace(kind=kind, **fields).pack())


def test_a_flow_is_a_table_and_the_cell_of_its_rule() -> None:
    found = event(EventKind.EVENT_FLOW, port=5, length=4711)
    assert (found.table, found.rule, found.op, found.action) == (5, 4711, None, None)
    assert event(EventKind.EVENT_FLOW, port=5).rule is None, "none matched"


def test_an_action_is_an_op_and_its_number() -> None:
    found = event(EventKind.EVENT_ACTION, port=OpCode.OP_OUTPUT, length=98)
    assert (found.op, found.action) == (98, OpCode.OP_OUTPUT)
    assert (found.table, found.rule, found.length) == (None, None, 0)


def test_other_events_have_neither() -> None:
    found = event(EventKind.EVENT_DROP, reason=Reason.DROP_NO_FORWARDING, port=3)
    assert (found.reason, found.port) == (Reason.DROP_NO_FORWARDING, 3)
    assert found.table is found.rule is found.op is found.action is None


def test_a_context_has_its_words_in_cb() -> None:
    """Of struct __sk_buff, where the kernel looks for them."""
    made = recorder.context(1, 2, 3, 4)
    assert len(made) == 48 + 5 * 4
    assert struct.unpack_from("=5I", made, 48) == (1, 2, 3, 4, 0)
