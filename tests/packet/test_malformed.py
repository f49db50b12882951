# SPDX-License-Identifier: Apache-2.0
"""Frames that end before their headers do: dropped as malformed, or passed as payload.

The kernel's test runs take no truncated IPv4, and cannot move a tag that stands before the rest of
another: the system tests send those.
"""

import pytest
from tests.packet.conftest import Switch, frame

from heliograph.kernel.layouts import Reason

HEAD = frame()[:12]


@pytest.mark.parametrize(
    ("limit", "rest", "expected"),
    [
        (1, "88b5", None),
        (1, "8100", Reason.DROP_MALFORMED),
        (1, "81000005", Reason.DROP_MALFORMED),
        (1, "8100000588", Reason.DROP_MALFORMED),
        (1, "8100000588b5", None),
        (2, "810000058100", Reason.DROP_MALFORMED),
        (2, "8100000588a80006", Reason.DROP_MALFORMED),
        (2, "8100000588a8000688b5", None),
    ],
)
def test_truncated_tags(switch: Switch, limit: int, rest: str, expected: Reason | None) -> None:
    """Neither mirrored nor learned if dropped, for nothing is known of it (rule 58)."""
    switch.configure(switch.mirror(0, "c", src=["a"]), vlan_limit=limit)
    sent = HEAD + bytes.fromhex(rest)
    assert switch.dropped(sent, "a") == expected
    assert [o.image for o in switch.outputs(sent, "a")] == ([] if expected else [sent.hex()] * 2)
    assert len(switch.events(sent, "a")) == 1 or expected is None
