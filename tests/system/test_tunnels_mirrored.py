# SPDX-License-Identifier: Apache-2.0
"""Tunnels that send nothing, and two of them by one wire."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import pytest
from tests.oracle.tunnel import Kind, Outer, encode
from tests.system.arrivals import arriving
from tests.system.remote_span import RemoteSpan, outers
from tests.system.site import BROADCAST, MAC2, Site, data, frame, mirror
from tests.system.underlay import BRIDGE, FAR, NEAR, Underlay
from tools.lab.capture import Capture
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools
from tools.lab.processes import eventually

SENT, ANSWER = frame(BROADCAST), frame(BROADCAST, MAC2)
ARRIVING = encode(
    Outer(
        to_mac=bytes.fromhex(NEAR.mac.replace(":", "")),
        from_mac=bytes.fromhex(FAR.mac.replace(":", "")),
        src=FAR.ipv4,
        dst=NEAR.ipv4,
        kind="gre",
        inner=ANSWER,
    )
)


@pytest.fixture(scope="module")
def span(tokens: list[str]) -> Iterator[RemoteSpan]:
    with Lab() as lab:
        tokens.append(lab.token)
        made = RemoteSpan(lab)
        made.under.ready()
        yield made
        print(made.switch.process.log_text())


def test_rule_9_egress_mirrors_of_a_tunnel_without_a_way_fire(span: RemoteSpan) -> None:
    span.ovs.vsctl(
        "add-port br0 out0 -- set interface out0 type=gre options:remote_ip=198.51.100.1"
        " -- --id=@out get port out0 -- --id=@2 get port tap2 "
        + mirror("m0", "br0", "select_dst_port=@out output_port=@2")
    )
    assert "198.51.100.1" in span.site.said("out0", "port")
    with span.under.capture() as wire, span.site.capture("tap2") as copies:
        span.site.send("tap1", *[SENT] * 3)
        assert data(copies.collect(3)) == [SENT] * 3
        assert outers(wire) == []
    assert span.site.live("m0") == {"tx_packets": 3, "tx_bytes": 180}
    assert span.site.live("out0", "port")["drop_no_route"] == 3
    assert span.site.said("m0") == "", "what it is to copy, it copies"


def returned(kind: Kind, key: int) -> bytes:
    """What this host has sent into such a tunnel, come back to a guest by a wire."""
    outer = arriving(kind, SENT, key=key)
    outer = replace(outer, to_mac=BROADCAST, from_mac=MAC2, src=NEAR.ipv4, dst=FAR.ipv4)
    return encode(outer)


@pytest.mark.parametrize(
    ("kind", "columns"),
    [
        ("gre", "type=gre"),
        ("erspan1", "type=erspan options:erspan_ver=1"),
        ("erspan2", "type=erspan options:erspan_ver=2"),
        ("vxlan", "type=vxlan"),
    ],
)
def test_no_copy_is_made_of_what_any_mirror_has_sent(
    span: RemoteSpan, kind: Kind, columns: str
) -> None:
    """Else two of them would feed each other for ever, where no mark tells: known by kind,
    addresses and key. What differs by its key alone is somebody's frame, and copied."""
    both = " -- ".join(
        f"--id=@{name} get port {name} -- --id=@m{name} create mirror name=m{name}"
        f" select_src_port=@1 output_port=@{name}"
        for name in ("out0", "out1")
    )
    span.ovs.vsctl(
        "clear bridge br0 mirrors -- --if-exists del-port out0 -- --if-exists del-port out1"
        f" -- add-port br0 out0 -- set interface out0 type=gre options:remote_ip={FAR.ipv4}"
        f" options:key=5 -- add-port br0 out1 -- set interface out1 {columns}"
        f" options:remote_ip={FAR.ipv4} options:key=6"
        f" -- --id=@1 get port tap1 -- {both} -- set bridge br0 mirrors=@mout0,@mout1"
    )
    other, own = returned(kind, 7), returned(kind, 6)
    with span.under.capture() as wire:
        span.site.send("tap1", other, own)
        assert [one.inner for one in outers(wire, 2)] == [other, other]
    for name in "mout0", "mout1":
        counted = span.site.live(name)
        assert (counted["tx_packets"], counted["drop_loop"]) == (2, 1)


def test_no_copy_into_a_vlan_is_made_of_what_it_has_sent(span: RemoteSpan) -> None:
    """The same of RSPAN, by a tunnel that carries its VLAN and is no mirror's output port."""
    span.ovs.vsctl(
        "clear bridge br0 mirrors -- --if-exists del-port out0 -- --if-exists del-port out1"
        f" -- add-port br0 out0 trunks=100 -- set interface out0 type=gre"
        f" options:remote_ip={FAR.ipv4} options:key=5 -- --id=@1 get port tap1 "
        + mirror("m0", "br0", "select_src_port=@1 output_vlan=100")
    )
    with span.under.capture() as wire:
        span.site.send("tap1", returned("gre", 7), returned("gre", 5))
        assert len(outers(wire, 1)) == 1
    assert span.site.live("out0", "port")["drop_loop"] == 1


def test_rule_113_nothing_is_sent_to_where_it_came_from(span: RemoteSpan) -> None:
    """Not out of the tunnel that it came out of, nor to an address of this host."""
    span.ovs.vsctl(
        "clear bridge br0 mirrors -- --if-exists del-port out0"
        f" -- add-port br0 out0 -- set interface out0 type=gre options:remote_ip={FAR.ipv4}"
        f" -- add-port br0 own0 -- set interface own0 type=gre options:remote_ip={NEAR.ipv4}"
    )
    assert "is an address of this host itself" in span.site.said("own0", "port")
    host = span.switch.host
    with (
        span.site.capture("tap1") as frames,
        span.under.capture() as wire,
        Capture(host, "lo") as loopback,
    ):
        span.under.send(ARRIVING)
        assert data(frames.collect(1)) == [ANSWER]
        assert outers(wire) == []
        assert loopback.collect() == []
    assert span.site.live("own0", "port")["drop_no_route"] == 1
    span.ovs.vsctl("del-port own0")


def test_copies_do_not_go_round_between_tunnels_by_one_uplink(
    lab: Lab, switch: Heliograph, ovs: Tools
) -> None:
    """Issue 4, "Bad input": a packet with a copy in it is not copied into any tunnel again. The
    host's address is on a bridge's LOCAL port, the uplink is the wire."""
    site = Site(lab, switch, ovs, {})
    under = Underlay.build(lab, switch.host, ovs)
    site.add(BRIDGE, "tap1")
    second = "10.9.0.3"
    under.collector.ip(f"address add {second}/24 dev under0")
    under.ready()
    assert eventually(lambda: switch.host.ping(second, 1) == 1)
    ovs.vsctl(
        f"-- add-port {BRIDGE} g0 -- set interface g0 type=gre options:remote_ip={FAR.ipv4}"
        f" -- add-port {BRIDGE} g1 -- set interface g1 type=gre options:remote_ip={second}"
        " -- --id=@up get port under0 -- --id=@g0 get port g0 -- --id=@g1 get port g1"
        " -- --id=@m0 create mirror name=m0 select_dst_port=@up output_port=@g0"
        " -- --id=@m1 create mirror name=m1 select_dst_port=@up output_port=@g1"
        f" -- set bridge {BRIDGE} mirrors=@m0,@m1"
    )
    with under.capture() as wire:
        site.send("tap1", SENT)
        found = [outer for outer in outers(wire, 2) if SENT in outer.inner]
        found += [outer for outer in outers(wire) if SENT in outer.inner]
    assert sorted(outer.dst for outer in found) == [FAR.ipv4, second]
    assert [outer.inner for outer in found] == [SENT, SENT]

    def ended(name: str) -> bool:
        """Each frame is selected with the two packets of its copies, which go no further; the
        host says some unasked."""
        counted = site.live(name)
        return counted["tx_packets"] * 2 == counted["drop_loop"] * 3

    assert all(eventually(partial(ended, name)) for name in ("m0", "m1"))
