# SPDX-License-Identifier: Apache-2.0
"""A device that is deleted and made again under the same number (D8)."""

import os
import signal
from collections.abc import Callable

from tools.lab.heliograph import Heliograph
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually


def test_a_device_made_again_under_its_number_is_bound_again(
    switch: Heliograph, ovs: Tools, guest: Callable[[str], Namespace]
) -> None:
    host, user, other = switch.host, guest("user"), guest("other")
    make = f"link add eth7 index 4711 type veth peer name eth0 netns {user.name}"
    ovs.vsctl("add-br br0 -- add-port br0 eth7 -- add-port br0 tap1")
    ovs.vsctl("set interface tap1 type=internal")
    host.ip(make)
    host.ip("link set eth7 up")
    switch.move("tap1", other, "10.9.0.1/24")
    user.address_up("eth0", "10.9.0.2/24")
    assert eventually(lambda: other.ping("10.9.0.2", 1) == 1)
    process = switch.child("switch")
    os.kill(process, signal.SIGSTOP)  # it sees both at once
    host.ip("link del eth7")
    host.ip(make)
    host.ip("link set eth7 up")
    os.kill(process, signal.SIGCONT)
    user.address_up("eth0", "10.9.0.2/24")
    other.ip("neigh flush all")  # it has another MAC
    assert eventually(lambda: other.ping("10.9.0.2", 1) == 1)
