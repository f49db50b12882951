# SPDX-License-Identifier: Apache-2.0
"""What the tests of tunnels stand on that none of them would see: who else could answer."""

from collections.abc import Callable
from dataclasses import replace

from tests.oracle.tunnel import Outer, encode
from tests.system.site import data, frame
from tests.system.underlay import BRIDGE, DEVICE, FAR, NEAR, End, Underlay, is_tunnelled
from tools.lab.capture import Capture
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools

Maker = Callable[[str], Namespace]
PLAIN = Outer(to_mac=b"", from_mac=b"", src="", dst="", kind="gre", inner=frame())


def between(here: End, there: End, outer: Outer, *, ipv6: bool = False) -> Outer:
    """The same on the way from here to there."""
    return replace(
        outer,
        to_mac=bytes.fromhex(there.mac.replace(":", "")),
        from_mac=bytes.fromhex(here.mac.replace(":", "")),
        src=here.ipv6 if ipv6 else here.ipv4,
        dst=there.ipv6 if ipv6 else there.ipv4,
        df=not ipv6,
        csum=ipv6 and outer.kind == "vxlan",
    )


def test_a_collector_sees_everything_and_answers_nothing(lab: Lab, guest: Maker) -> None:
    under = Underlay.build(lab, guest("host"))
    under.ready()
    with under.capture() as outer, Capture(under.host, DEVICE) as answers:
        udp = replace(PLAIN, kind="vxlan", key=1, sport=50000, dport=4789)
        sent = [encode(between(NEAR, FAR, PLAIN, ipv6=ipv6)) for ipv6 in (False, True)]
        sent += [encode(between(NEAR, FAR, udp, ipv6=ipv6)) for ipv6 in (False, True)]
        under.host.send(DEVICE, sent)
        assert data(outer.collect(4, keep=is_tunnelled)) == sent
        assert answers.collect() == []
        back = encode(between(FAR, NEAR, PLAIN))
        under.send(back)
        assert data(answers.collect(1)) == [back]


def test_a_bridge_may_have_the_address(lab: Lab, switch: Heliograph, ovs: Tools) -> None:
    """On its LOCAL port, so that whatever goes to the underlay passes the switch itself."""
    under = Underlay.build(lab, switch.host, bridge=ovs)
    under.ready()
    assert under.host.ip(f"-o link show {BRIDGE}").split()[4] == "1600"
    assert f"dev {BRIDGE}" in under.host.ip(f"route get {FAR.ipv4}")
