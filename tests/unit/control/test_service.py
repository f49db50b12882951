# SPDX-License-Identifier: Apache-2.0
"""The real ovs-ofctl against the service."""

import pytest
from tests.unit.control.fakes import NAMES, Switch

every_version = pytest.mark.parametrize("version", NAMES)


@every_version
async def test_flows_are_printed_as_they_were_added(switch: Switch, version: int) -> None:
    assert await switch.ofctl(version, "add-flow", "tcp,tp_dst=80 actions=output:1") == ""
    assert await switch.flows(version) == ["tcp,tp_dst=80 actions=output:1"]
    assert "dpid:0000000000001234" in await switch.ofctl(version, "show")
