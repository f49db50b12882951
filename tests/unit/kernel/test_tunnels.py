# SPDX-License-Identifier: Apache-2.0
"""What tunnel ports are in bytes, and which of them a packet finds (bpf/untunnel.h)."""

import struct
from dataclasses import replace
from ipaddress import ip_address

import pytest

from heliograph.kernel import layouts
from heliograph.kernel.layouts import Match, Reason, TunnelFlags, TunnelKind
from heliograph.kernel.tunnels import (
    Address,
    TunnelEntry,
    UnderlayEntry,
    Way,
    addresses,
    endpoints,
    pack,
)

FAR, OTHER, NEAR, SECOND = (
    ip_address(f"192.0.2.{n}") for n in (1, 3, 2, 4)
)  # SECOND is another address of ours
FAR6, NEAR6 = ip_address("2001:db8::1"), ip_address("2001:db8::2")
OURS: frozenset[Address] = frozenset({NEAR, SECOND})
WAY = Way(Reason.DELIVERED, 7, NEAR, OTHER, 1500)
GRE = TunnelEntry(
    number=5,
    bridge=3,
    kind=TunnelKind.GRE,
    flags=0,
    remote=FAR,
    local=None,
    family=4,
    in_key=0,
    way=WAY,
)


def packed(entry: TunnelEntry) -> layouts.Tunnel:
    """Its struct tunnel, among the others of an underlay."""
    data = pack(UnderlayEntry(77, 37, OURS, (replace(GRE, number=entry.number - 1), entry)))
    at = layouts.UNDERLAY_TUNNELS + entry.number * layouts.TUNNEL.size
    return layouts.Tunnel.unpack(data[at : at + layouts.TUNNEL.size])


def test_a_tunnel_in_bytes() -> None:
    entry = replace(
        GRE,
        kind=TunnelKind.ERSPAN_III,
        flags=TunnelFlags.TUNNEL_DF | TunnelFlags.TUNNEL_CUT,
        key=77,
        ttl=9,
        tos=0x20,
        index=0xABCDE,
        hwid=0x2A,
        direction=1,
    )
    assert packed(entry) == layouts.Tunnel(
        kind=TunnelKind.ERSPAN_III,
        flags=TunnelFlags.TUNNEL_DF | TunnelFlags.TUNNEL_CUT,
        state=Reason.DELIVERED,
        ifindex=7,
        mtu=1500,
        key=77,
        erspan_index=0xABCDE,
        dst_port=0,
        ttl=9,
        tos=0x20,
        hwid=0x2A,
        direction=1,
        padding=0,
        local=NEAR.packed.ljust(16, b"\0"),
        remote=FAR.packed.ljust(16, b"\0"),
        hop=OTHER.packed.ljust(16, b"\0"),
    )


def test_what_all_tunnels_share() -> None:
    data = pack(UnderlayEntry(77, 37, OURS, (GRE,)))
    assert len(data) == layouts.UNDERLAY_SIZE
    assert struct.unpack_from("=II", data) == (77, 37)
    assert pack(UnderlayEntry()) == bytes(layouts.UNDERLAY_SIZE), "no tunnel is NO_TUNNEL"


@pytest.mark.parametrize(
    ("remote", "hop", "flags"),
    [
        (FAR, OTHER, 0),
        (FAR, FAR6, TunnelFlags.TUNNEL_VIA_IPV6),
        (FAR6, FAR6, TunnelFlags.TUNNEL_IPV6 | TunnelFlags.TUNNEL_VIA_IPV6),
        (FAR6, None, TunnelFlags.TUNNEL_IPV6),
        (None, None, 0),
    ],
)
def test_the_families_of_the_far_end_and_of_the_next_hop(
    remote: Address | None, hop: Address | None, flags: int
) -> None:
    """IPv4 may go by a neighbour with an IPv6 address."""
    entry = packed(replace(GRE, remote=remote, way=replace(WAY, hop=hop)))
    assert entry.flags == flags
    assert entry.hop == (hop.packed.ljust(16, b"\0") if hop else bytes(16))


def test_why_nothing_can_be_sent_is_in_the_entry() -> None:
    entry = packed(replace(GRE, way=Way(Reason.DROP_NO_ROUTE)))
    assert (entry.state, entry.ifindex, entry.local) == (Reason.DROP_NO_ROUTE, 0, bytes(16))


def test_the_udp_ports_are_those_of_vxlan_tunnels() -> None:
    vxlan = replace(GRE, kind=TunnelKind.VXLAN, number=6, dst_port=4789)
    tunnels = (GRE, vxlan, replace(vxlan, number=7, dst_port=8472), replace(vxlan, number=8))
    data = pack(UnderlayEntry(1, 0, OURS, tunnels))
    words = struct.unpack_from("=1024Q", data, layouts.UNDERLAY_UDP_PORTS)
    # As the program asks: word port >> 6, bit port & 63.
    assert {p for p in range(65536) if words[p >> 6] >> (p & 63) & 1} == {4789, 8472}


def known(*tunnels: TunnelEntry) -> dict[bytes, bytes]:
    """The map that the program looks them up in."""
    return endpoints(UnderlayEntry(77, 37, OURS, tunnels))


def found(
    tunnels: list[TunnelEntry],
    *,
    key: int = 0,
    local: Address = NEAR,
    remote: Address = FAR,
    kind: TunnelKind = TunnelKind.GRE,
    dst_port: int = 0,
) -> tuple[Match, int] | None:
    """Which port the program finds for a packet, and by what: its steps, in its order."""
    table = known(*tunnels)
    here, there, anyone = (
        (address.packed.ljust(16, b"\0") if address else bytes(16))
        for address in (local, remote, None)
    )
    for match, wanted, sender in (
        (Match.MATCH_ALL, key, there),
        (Match.MATCH_KEY, key, anyone),
        (Match.MATCH_REMOTE, 0, there),
        (Match.MATCH_ANY, 0, anyone),
        (Match.MISSED_KEY, 0, there),
        (Match.MISSED_REMOTE, key, anyone),
    ):
        for ours in (here, *([anyone] if local in OURS else [])):
            ipv6 = local.version == 6
            asked = layouts.Endpoint(kind, match, ipv6, 0, dst_port, wanted, ours, sender)
            if owner := table.get(asked.pack()):
                return match, layouts.Device.unpack(owner).port
    return None


def port(
    number: int, remote: Address | None, local: Address | None, key: int | None
) -> TunnelEntry:
    return replace(GRE, number=number, remote=remote, local=local, in_key=key)


def test_rule_112_the_most_specific_port_receives() -> None:
    """In order: in_key, remote_ip, local_ip; each port is taken away once it has been found."""
    order = [
        port(10, FAR, NEAR, 5),
        port(9, FAR, None, 5),
        port(8, None, NEAR, 5),
        port(7, None, None, 5),
        port(6, FAR, NEAR, None),
        port(5, FAR, None, None),
        port(4, None, NEAR, None),
        port(3, None, None, None),
    ]
    while order:
        match = found(order[::-1], key=5)
        assert match == found(order, key=5), "the order of the rows says nothing"
        assert match and match[1] == order[0].number and match[0] < Match.MATCHES
        del order[0]


def test_a_configured_local_ip_counts_only_for_packets_that_come_there() -> None:
    """Rule 112; the port without one still receives at the other address."""
    both = [port(1, FAR, None, 5), port(2, FAR, NEAR, 5)]
    assert found(both, key=5, local=NEAR) == (Match.MATCH_ALL, 2)
    assert found(both, key=5, local=SECOND) == (Match.MATCH_ALL, 1)


def test_a_port_receives_nothing_at_an_address_that_is_not_ours() -> None:
    there = known(replace(GRE, local=OTHER))
    assert {layouts.Endpoint.unpack(key).match for key in there} == {Match.SENT}
    assert found([GRE], local=OTHER) is None


def test_a_port_that_any_host_of_either_family_may_send_to() -> None:
    """One that is for one family goes before it."""
    anyone = replace(GRE, remote=None, family=None)
    table = known(anyone, replace(anyone, number=6, family=6))
    owners = {
        layouts.Endpoint.unpack(key).ipv6: layouts.Device.unpack(owner).port
        for key, owner in table.items()
    }
    assert owners == {0: 5, 1: 6}


def test_the_addresses_at_which_ports_receive_that_name_none() -> None:
    underlay = UnderlayEntry(77, 37, frozenset({NEAR, NEAR6}), (GRE,))
    found = {layouts.OwnAddress.unpack(key) for key in addresses(underlay)}
    assert found == {(0, NEAR.packed.ljust(16, b"\0")), (1, NEAR6.packed)}


def test_what_a_port_sends_is_known_by_kind_key_and_addresses() -> None:
    """Of copies too, if a mirror's go there; nothing of a port that sends nothing."""
    erspan = replace(GRE, kind=TunnelKind.ERSPAN_III, key=77, copies=True)
    ends = NEAR.packed.ljust(16, b"\0"), FAR.packed.ljust(16, b"\0")
    for entry, matches in (erspan, {Match.SENT, Match.SENT_COPY}), (GRE, {Match.SENT}):
        kind = TunnelKind.ERSPAN_II if entry is erspan else TunnelKind.GRE
        sent = [key for key in map(layouts.Endpoint.unpack, known(entry)) if key[1] in matches]
        assert {key.match for key in sent} == matches
        assert {key[:1] + key[2:] for key in sent} == {(kind, 0, 0, 0, entry.key, *ends)}
    for silent in replace(GRE, remote=None), replace(GRE, way=Way(Reason.DROP_NO_ROUTE)):
        assert not [
            key for key in map(layouts.Endpoint.unpack, known(silent)) if key.match >= Match.SENT
        ]


def test_near_misses_are_known_by_what_they_miss() -> None:
    both = [port(1, FAR, None, 5), port(2, OTHER, None, None)]
    assert found(both, key=6) == (Match.MISSED_KEY, 1)
    assert found(both, key=5, remote=ip_address("192.0.2.9")) == (Match.MISSED_REMOTE, 1)
    assert found(both, key=6, remote=ip_address("192.0.2.9")) is None, "nothing in common"
    assert found(both, key=6, remote=OTHER) == (Match.MATCH_REMOTE, 2), "any key is its key"
    assert found(both, key=5, local=FAR) is None
    assert found(both, key=5, kind=TunnelKind.ERSPAN_II) is None


def test_what_is_near_one_port_and_fits_another_is_the_others() -> None:
    """A remote host with two keys has two ports; none of them counts the other's packets."""
    both = [port(1, FAR, None, 5), port(2, FAR, None, 6)]
    assert [found(both, key=key) for key in (5, 6)] == [(Match.MATCH_ALL, 1), (Match.MATCH_ALL, 2)]


def test_what_may_be_of_the_hosts_own_tunnels_is_left_to_it() -> None:
    """Nobody else's packets are dropped where the host has such devices itself."""
    tunnel = replace(port(1, FAR, None, 5), alone=False)
    assert found([tunnel], key=5) == (Match.MATCH_ALL, 1)
    assert found([tunnel], key=6) is found([tunnel], key=5, remote=OTHER) is None


def test_ports_that_take_anyones_packets_have_no_near_misses() -> None:
    assert found([port(1, None, None, 5)], key=6) is None


def test_both_versions_of_erspan_are_looked_for_alike() -> None:
    """What is of the wrong version for the port is seen to be that afterwards."""
    for kind in TunnelKind.ERSPAN_II, TunnelKind.ERSPAN_III:
        tunnel = replace(GRE, kind=kind, in_key=7)
        assert found([tunnel], key=7, kind=TunnelKind.ERSPAN_II) == (Match.MATCH_ALL, 5)
        assert found([tunnel], key=7, kind=TunnelKind.GRE) is None


def test_a_vxlan_port_receives_at_its_udp_port() -> None:
    tunnels = [
        replace(GRE, kind=TunnelKind.VXLAN, dst_port=4789, in_key=7),
        replace(GRE, kind=TunnelKind.VXLAN, dst_port=8472, in_key=7, number=6),
    ]
    for dst_port, number in (4789, 5), (8472, 6):
        hit = found(tunnels, key=7, kind=TunnelKind.VXLAN, dst_port=dst_port)
        assert hit == (Match.MATCH_ALL, number)
    assert found(tunnels, key=7, kind=TunnelKind.VXLAN, dst_port=1) is None


def test_packets_too_broken_to_say_more_are_known_by_their_ends() -> None:
    for kind in TunnelKind.GRE, TunnelKind.VXLAN:
        table = known(replace(GRE, kind=kind, dst_port=4789, in_key=7))
        ends = bytes(16), FAR.packed.ljust(16, b"\0")
        key = layouts.Endpoint(kind, Match.MISSED_PROTOCOL, 0, 0, 0, 0, *ends)
        assert table[key.pack()] == layouts.Device(3, 5).pack()
