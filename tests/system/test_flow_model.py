# SPDX-License-Identifier: Apache-2.0
"""The model of flow tables beside Open vSwitch's own tables; `tests.oracle.flow_tables.run` is
the same at any length. No packet is sent: this is about what is kept, told and refused."""

from tests.oracle.flow_tables import run
from tools.lab.lab import Lab
from tools.lab.openvswitch import UserspaceSwitch

SETTINGS = "datapath_type=netdev fail_mode=secure"
PROTOCOLS = "protocols=[OpenFlow10,OpenFlow13,OpenFlow14,OpenFlow15]"


def test_random_changes_leave_what_they_leave_in_open_vswitch(lab: Lab) -> None:
    tools = UserspaceSwitch(lab, lab.namespace("ovs")).tools
    tools.vsctl(f"add-br br0 -- set bridge br0 {SETTINGS} {PROTOCOLS}")
    outcomes = run(tools.rundir / "br0.mgmt", seed=527, count=300)
    # Changes were made, and refused for many reasons.
    assert outcomes[""] > 120
    assert len(outcomes) > 7, outcomes
