# SPDX-License-Identifier: Apache-2.0
"""Options of a tunnel and the way it takes become what the data plane knows of it."""

from dataclasses import replace
from ipaddress import ip_address

import pytest
from tests.unit.switch.test_tunnels import FAR, tunnel

from heliograph.kernel.layouts import Reason, TunnelFlags, TunnelKind
from heliograph.kernel.tunnels import TunnelEntry, Way
from heliograph.switch.encapsulation import Network
from heliograph.switch.underlay import Path

NEAR, HOP = ip_address("192.0.2.2"), ip_address("192.0.2.3")
PATH = Path(7, HOP, NEAR, 1500, Reason.DELIVERED, None)
DF_AND_CUT = TunnelFlags.TUNNEL_DF | TunnelFlags.TUNNEL_CUT


def entry(words: str, path: Path | None = PATH) -> TunnelEntry:
    """Of port 5 on the bridge in slot 3."""
    made = tunnel(words)
    network = Network(
        {made.uuid: made},
        {made.uuid: path} if path else {},
        addresses=frozenset({NEAR}),
    )
    return network.entry(made.uuid, 5, 3)


def test_a_gre_port_on_its_way() -> None:
    assert entry("gre key=0x1000 local_ip=192.0.2.2 ttl=9 tos=0x20") == TunnelEntry(
        number=5,
        bridge=3,
        kind=TunnelKind.GRE,
        flags=DF_AND_CUT | TunnelFlags.TUNNEL_KEY,
        remote=ip_address(FAR),
        local=NEAR,
        family=4,
        in_key=4096,
        way=Way(Reason.DELIVERED, 7, NEAR, HOP, 1500),
        key=4096,
        ttl=9,
        tos=0x20,
    )


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("gre", TunnelKind.GRE),
        ("ip6gre remote_ip=2001:db8::1", TunnelKind.GRE),
        ("erspan erspan_ver=1", TunnelKind.ERSPAN_II),
        ("erspan erspan_ver=2", TunnelKind.ERSPAN_III),
        ("ip6erspan erspan_ver=2 remote_ip=2001:db8::1", TunnelKind.ERSPAN_III),
        ("vxlan", TunnelKind.VXLAN),
    ],
)
def test_rule_114_the_kinds(words: str, kind: TunnelKind) -> None:
    """Version 1 is type II, version 2 is type III."""
    assert entry(words).kind == kind


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        ("gre", DF_AND_CUT),
        ("gre out_key=0", DF_AND_CUT | TunnelFlags.TUNNEL_KEY),
        ("gre in_key=5", DF_AND_CUT),
        ("gre csum=true", DF_AND_CUT | TunnelFlags.TUNNEL_CHECKSUM),
        ("gre seq=true", DF_AND_CUT | TunnelFlags.TUNNEL_SEQUENCE),
        ("gre ttl=inherit", DF_AND_CUT | TunnelFlags.TUNNEL_INHERIT_TTL),
        ("gre tos=inherit", DF_AND_CUT | TunnelFlags.TUNNEL_INHERIT_TOS),
        ("gre df_default=false", TunnelFlags.TUNNEL_CUT),
    ],
)
def test_rules_104_to_111_the_flags(words: str, flags: int) -> None:
    assert entry(words).flags == flags


@pytest.mark.parametrize(("words", "cut"), [("", True), ("=cut", True), ("=drop", False)])
def test_rule_122_what_does_not_fit_is_cut_or_dropped_but_no_fragment_is_made(
    words: str, cut: bool
) -> None:
    made = entry(f"gre heliograph_mtu{words}" if words else "gre")
    assert bool(made.flags & TunnelFlags.TUNNEL_CUT) == cut
    assert made.flags & TunnelFlags.TUNNEL_DF


def test_rule_108_what_a_flow_would_say_is_0_and_any_key_is_received() -> None:
    made = entry("erspan erspan_ver=1 key=flow erspan_idx=flow")
    assert (made.key, made.index, made.in_key) == (0, 0, None)


def test_departure_5_a_direction_that_is_configured_is_every_copys() -> None:
    assert not entry("erspan erspan_ver=2").flags & TunnelFlags.TUNNEL_DIRECTION
    made = entry("erspan erspan_ver=2 erspan_dir=1 erspan_hwid=2a")
    assert made.flags & TunnelFlags.TUNNEL_DIRECTION
    assert (made.direction, made.hwid) == (1, 0x2A)
    made = entry("erspan erspan_ver=2 erspan_dir=0")
    assert made.flags & TunnelFlags.TUNNEL_DIRECTION and made.direction == 0


def test_rule_110_the_ttl_for_what_has_none_to_inherit() -> None:
    assert entry("gre ttl=inherit").ttl == 64


def test_rule_123_the_udp_port() -> None:
    assert entry("vxlan").dst_port == 4789
    assert entry("vxlan dst_port=8472 key=7").dst_port == 8472
    assert entry("gre").dst_port == 0


def test_departure_2_a_tunnel_without_a_way_says_why_it_sends_nothing() -> None:
    gone = replace(PATH, ifindex=0, reason=Reason.DROP_NO_ROUTE, problem="no route to host")
    assert entry("gre", gone).way.state == Reason.DROP_NO_ROUTE
    nowhere = entry("gre remote_ip=flow", None)
    assert (nowhere.remote, nowhere.way.state) == (None, Reason.DROP_NO_ROUTE)


def test_why_a_mirror_into_a_tunnel_would_be_without_effect() -> None:
    works, lost, flow = tunnel("gre"), tunnel("gre key=2"), tunnel("gre remote_ip=flow")
    paths = {works.uuid: PATH, lost.uuid: replace(PATH, problem="no route to host")}
    network = Network({made.uuid: made for made in (works, lost, flow)}, paths)
    assert network.problem(works.uuid) is None
    assert network.problem(lost.uuid) == "no route to host"
    assert "remote_ip=flow" in (network.problem(flow.uuid) or "")


@pytest.mark.parametrize(
    ("words", "kind", "alone"),
    [
        ("gre", "gretap", False),
        ("gre", "vxlan", True),
        ("vxlan", "vxlan", False),
        ("erspan erspan_ver=1", "ip6erspan", False),
    ],
)
def test_devices_of_the_host_that_have_such_packets_too(words: str, kind: str, alone: bool) -> None:
    made = tunnel(words)
    network = Network({made.uuid: made}, kinds=frozenset({"veth", kind}))
    assert network.entry(made.uuid, 5, 3).alone == alone
