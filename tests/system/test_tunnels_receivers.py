# SPDX-License-Identifier: Apache-2.0
"""Where tunnels receive: on the devices by which packets for an address of theirs come in, as
these come and go (issue 4, item 5)."""

from typing import Any

import pytest
from tests.oracle.tunnel import decode, encode
from tests.system.arrivals import GUEST, Rig, arriving, is_answer
from tests.system.site import BROADCAST, MAC1, MAC2, Site, data, frame
from tests.system.underlay import BRIDGE, DEVICE, FAR, NEAR, Underlay, wire
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import PATIENCE, eventually
from tools.lab.watchdog import Watchdog

PLAIN = frame()
SECOND, SECOND_MAC = "10.9.5.1", "02:09:05:00:00:01"
GRE = f"type=gre options:remote_ip={FAR.ipv4}"


def receives_on(rig: Rig, *devices: str) -> bool:
    return eventually(lambda: rig.receivers() == set(devices), interval=0.01)


def to_second(**fields: Any) -> bytes:
    mac = bytes.fromhex(SECOND_MAC.replace(":", ""))
    return encode(arriving("gre", PLAIN, **{"dst": SECOND, "to_mac": mac} | fields))


def arrives(rig: Rig, device: str, packet: bytes, *, timeout: float = PATIENCE) -> bool:
    """Whether it comes out of a tunnel when the collector sends it by a device."""
    with rig.site.capture(GUEST) as inside:
        rig.under.collector.send(device, [packet])
        return data(inside.collect(1, quiet=0.05, timeout=timeout)) == [PLAIN]


def is_lost(rig: Rig, device: str, packet: bytes) -> bool:
    return not arrives(rig, device, packet, timeout=0.1)


def test_addresses_and_devices_come_and_go(lab: Lab) -> None:
    """Issue 4, item 5: on no device without a tunnel; and then on every one with an address."""
    rig = Rig.build(lab, mtu=1600)
    host, near = rig.under.host, encode(arriving("gre", PLAIN))
    wire((host, "under1"), (rig.under.collector, "under1"))
    host.ip(f"link set under1 address {SECOND_MAC}")
    assert rig.receivers() == set()
    rig.dig({"gre0": GRE})
    rig.introduce("")
    assert rig.receivers() == {DEVICE}, "not there when ovs-vsctl returned"
    assert is_lost(rig, "under1", to_second())
    host.ip(f"address add {SECOND}/24 dev under1")
    assert receives_on(rig, DEVICE, "under1")
    assert arrives(rig, "under1", to_second())
    assert arrives(rig, DEVICE, near)
    assert rig.counts("gre0")["rx_packets"] == 2
    host.ip(f"address del {SECOND}/24 dev under1")
    assert receives_on(rig, DEVICE)
    assert is_lost(rig, "under1", to_second())
    host.ip(f"address add {SECOND}/24 dev {DEVICE}")
    moved = encode(arriving("gre", PLAIN, dst=SECOND))
    assert eventually(lambda: not is_lost(rig, DEVICE, moved))
    counted = rig.counts("gre0")["rx_packets"]
    host.ip(f"address del {SECOND}/24 dev {DEVICE}")
    host.ip(f"address del {NEAR.ipv4}/24 dev {DEVICE}")
    host.ip(f"address add {NEAR.ipv4}/24 dev under1")
    assert receives_on(rig, "under1")
    assert arrives(rig, "under1", to_second(dst=NEAR.ipv4))
    assert is_lost(rig, DEVICE, near)
    host.ip("link del under1")
    assert receives_on(rig)
    host.ip(f"address add {NEAR.ipv4}/24 dev {DEVICE}")
    assert receives_on(rig, DEVICE)
    assert arrives(rig, DEVICE, near)
    assert rig.counts("gre0")["rx_packets"] == counted + 2
    rig.fill_in()
    assert rig.receivers() == set()
    with rig.under.capture() as answers:
        rig.under.send(near)
        assert len(answers.collect(1, keep=is_answer)) == 1, "the host does not say who it is for"


def test_an_address_that_is_on_lo(lab: Lab) -> None:
    """Issue 4, item 5: its packets come by the devices that have frames."""
    rig = Rig.build(lab, mtu=1600)
    local = "192.0.2.1"
    packet = encode(arriving("gre", PLAIN, dst=local))
    rig.dig({"gre0": f"{GRE} options:local_ip={local}"})
    rig.introduce("")
    assert rig.receivers() == set()
    assert is_lost(rig, DEVICE, packet)
    rig.under.host.ip(f"address add {local}/32 dev lo")
    assert receives_on(rig, DEVICE)
    assert arrives(rig, DEVICE, packet)
    assert is_lost(rig, DEVICE, encode(arriving("gre", PLAIN)))
    rig.under.host.ip(f"address del {local}/32 dev lo")
    assert receives_on(rig)


@pytest.mark.parametrize("bridge", [BRIDGE, "br0"])
def test_the_address_is_on_a_bridge(lab: Lab, bridge: str) -> None:
    """Issue 4, item 5: on the LOCAL port of the tunnel port's own bridge, or of another one; no
    frame goes round."""
    switch = Heliograph(lab)
    switch.start()
    site = Site(lab, switch, Tools(switch.rundir), {})
    under = Underlay.build(lab, switch.host, bridge=site.ovs)
    site.ovs.vsctl("--may-exist add-br br0")
    site.add(bridge, GUEST)
    under.ready()
    rig = Rig(site, under)
    rig.dig({"gre0": f"{GRE} options:key=5"}, bridge=bridge)
    rig.introduce("")
    assert rig.receivers() == {BRIDGE}
    packet = encode(arriving("gre", PLAIN, key=5))
    with Watchdog(lab), under.capture() as outer:
        assert rig.deliver(packet, packet) == [PLAIN, PLAIN]
        site.send(GUEST, frame(MAC1, MAC2), frame(BROADCAST, MAC2))
        found = data(outer.collect(2 + (bridge == BRIDGE), keep=lambda one: MAC2 in one.data))
    tunnelled = [decode(one).inner for one in found if one[12:14] == b"\x08\0"]
    assert tunnelled == [frame(MAC1, MAC2), frame(BROADCAST, MAC2)]
    plain = [one for one in found if one[12:14] != b"\x08\0"]
    assert plain == ([frame(BROADCAST, MAC2)] if bridge == BRIDGE else [])
    assert eventually(lambda: under.host.ping(FAR.ipv4, 1) == 1)
    assert rig.counts("gre0")["rx_packets"] == 2
