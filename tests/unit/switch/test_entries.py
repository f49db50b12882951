# SPDX-License-Identifier: Apache-2.0
"""A port as the data plane sees it."""

import dataclasses
from uuid import UUID

from tests.unit.switch.conftest import Rows

from heliograph.switch.entries import generation


def test_what_is_learned_on_a_port_outlives_an_upgrade(rows: Rows) -> None:
    """The number is in maps that a later version takes over: it may not change for old rows."""
    rows.bridge("br0", (rows.port("tap1", tag=7),))
    bridge = dataclasses.replace(rows.intent.bridges[0], uuid=UUID(int=1))
    port = dataclasses.replace(bridge.ports[0], uuid=UUID(int=2))
    assert generation(bridge, port) == 795731444
