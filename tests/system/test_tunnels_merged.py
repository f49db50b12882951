# SPDX-License-Identifier: Apache-2.0
"""What the kernel has merged on its way (GRO, as network cards do it) before it comes out of a
tunnel."""

import pytest
from tests.system.test_tunnels_streams import transfer
from tests.system.underlay import FAR, NEAR, Pair
from tools.lab.lab import Lab
from tools.lab.processes import eventually


@pytest.mark.parametrize("words", ["type=gre", "type=gre options:csum=true", "type=vxlan"])
def test_a_stream_that_was_merged(lab: Lab, words: str) -> None:
    """D10: each segment comes out, once, though its outer checksum was the merged packet's."""
    pair = Pair.build(lab)
    for site in pair.near, pair.far:
        site.switch.host.run("ethtool", "-K", "under0", "gro", "on")
    sender, receiver = pair.near.guests["tap1"], pair.far.guests["tap2"]
    sender.address_up("tap1", "10.8.0.1/24")
    receiver.address_up("tap2", "10.8.0.2/24")
    for site, peer in (pair.near, FAR), (pair.far, NEAR):
        site.ovs.vsctl(
            f"add-port br0 tun0 -- set interface tun0 {words} options:remote_ip={peer.ipv4}"
        )
    assert eventually(lambda: sender.ping("10.8.0.2", 1) == 1)
    # TCP would else send again what the machine has only held up.
    sender.set_sysctl("ipv4/tcp_early_retrans", "0")
    sender.ip("route change 10.8.0.0/24 dev tap1 src 10.8.0.1 rto_min 30s")
    assert not transfer(sender, receiver, "10.8.0.2"), "segments were sent again"
    counted = pair.far.live("tun0", "port")
    assert counted["rx_packets"] > 100
    assert not [key for key in counted if key.startswith("drop_") and key != "drop_same_port"]
