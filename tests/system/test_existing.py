# SPDX-License-Identifier: Apache-2.0
"""A device of the user's as a port: what he has set up on it goes on working."""

import re
from collections.abc import Callable

from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually


def test_its_queueing_discipline_sees_every_frame(
    switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    """Those to known destinations too."""
    host, user, other = switch.host, guest("user"), guest("other")
    host.ip(f"link add eth7 type veth peer name eth0 netns {user.name}")
    host.ip("link set eth7 up")
    user.address_up("eth0", "10.9.0.2/24")
    ovs.vsctl("add-br br0 -- add-port br0 eth7")
    ovs.vsctl("add-port br0 tap1 -- set interface tap1 type=internal")
    switch.move("tap1", other, "10.9.0.1/24")
    assert eventually(lambda: other.ping("10.9.0.2", 1) == 1)
    host.run("tc", "qdisc", "add", "dev", "eth7", "root", "pfifo")
    assert other.ping("10.9.0.2", 20) == 20
    told = re.search(
        r"Sent \d+ bytes (\d+) pkt", host.run("tc", "-s", "qdisc", "show", "dev", "eth7").stdout
    )
    assert told and int(told[1]) >= 20
