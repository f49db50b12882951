# SPDX-License-Identifier: Apache-2.0
"""What goes into tunnels, byte for byte, as a socket at the underlay's far end sees it.

Every frame of a batch goes into every kind of tunnel at once (fan.py), as a mirror's copy or by
itself; what each outer packet has to be is worked out from the rules, and decoded by an oracle that
is as strict as a comparison of bytes. A part of what was seen is shown to tshark, too.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import ARP
from scapy.packet import Packet
from tests.oracle.tunnel import Outer, decode, encode
from tests.oracle.vlan import Tags, admits, includes, outward, parse
from tests.system.fan import INHERIT, JUMBO, MTU, TRUNK, Case, Fan, Tunnel, recognise
from tests.system.site import MAC1, MAC2
from tests.system.test_tunnel_oracle import expected, fields
from tests.system.underlay import is_tunnelled
from tools.lab import tshark
from tools.lab.lab import Lab

from heliograph.kernel.layouts import PriorityTags, VlanMode
from heliograph.kernel.snapshot import PortEntry

IPV4, IPV6 = IP(src="10.8.0.1", dst="10.8.0.2"), IPv6(src="fd08::1", dst="fd08::2")
CONTENTS: dict[str, Packet] = {
    "udp": IPV4 / UDP(sport=1000, dport=2000),
    "tcp": IPV4 / TCP(sport=1000, dport=2000, flags="PA"),
    "icmp": IPV4 / ICMP(),
    "udp6": IPV6 / UDP(sport=1000, dport=2000),
    "tcp6": IPV6 / TCP(sport=1000, dport=2000, flags="PA"),
    "icmp6": IPV6 / ICMPv6EchoRequest(),
}
# None, 802.1Q with PCP, the same with DEI, two priority tags (the second says nothing), a service
# tag, and one before a customer's.
TAGS = ("", "81006005", "81007005", "8100a000", "81000000", "88a84064", "88a8406481006005")
SNAPLENS = (14, 15, 18, 19, 33, 34, 42, 60, 64, 128, 1000)
NOISE = Random(4).randbytes(JUMBO)


def content(name: str, size: int) -> bytes:
    """Type and payload of a frame that is `size` bytes long without a tag, padded if it must."""
    if name == "arp":
        return (b"\x08\x06" + bytes(ARP(psrc="10.8.0.1", pdst="10.8.0.2"))).ljust(size - 12, b"\0")
    if name == "other":
        return b"\x88\xb6" + NOISE[: size - 14]
    if name == "llc":  # a length in the place of the type
        return (size - 14).to_bytes(2, "big") + b"\x42\x42\x03" + NOISE[: size - 17]
    packet = CONTENTS[name]
    kind = b"\x86\xdd" if name.endswith("6") else b"\x08\0"
    data = bytes(packet / NOISE[: max(0, size - 14 - len(packet))])
    return (kind + data).ljust(size - 12, b"\0")


def whole(name: str, size: int = 60, tag: str = "", src: bytes = MAC1, dst: bytes = MAC2) -> bytes:
    return dst + src + bytes.fromhex(tag) + content(name, size)


def battery() -> list[bytes]:
    names = (*CONTENTS, "arp", "other", "llc")
    frames = [whole(name, 60, tag) for name in names for tag in TAGS]
    frames += [whole(name, 1514, tag) for name in (*CONTENTS, "other") for tag in TAGS]
    # The least that is left of a frame, and what a padding device would make of it.
    frames += [whole("other", n) for n in (14, 15, 16, 17, 18, 33, 34, 42, 58, 59, 61, 1513, 1515)]
    frames += [whole("other", n, "81006005") for n in (16, 17, 55, 56, 1515)]
    frames += [whole("udp", 60)[:n] for n in (20, 33, 34, 41, 59)]  # cut before it got here
    frames += [whole("udp6", 62)[:n] for n in (20, 53, 54, 61)]
    return frames + [whole(n, JUMBO, t) for n in ("udp", "tcp6", "other") for t in TAGS[:2]]


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[Fan]:
    lab = Lab()
    tokens.append(lab.token)
    with lab:
        yield Fan.build(lab)
        for process in lab.processes:
            print(process.log_text())


@pytest.fixture
def fan(made: Fan) -> Iterator[Fan]:
    """Every kind of tunnel; what a test configures goes again."""
    yield made
    made.unmirror()
    made.each("port", "tag vlan_mode trunks other_config", command="clear")
    made.each("interface", "options tos ttl df_default heliograph_mtu", command="remove")
    for port in "p1", "p2":
        made.site.ovs.vsctl(f"clear port {port} tag vlan_mode trunks other_config")


def few() -> list[bytes]:
    """Of the frames one of each sort, short and long."""
    sorts = [("udp", ""), ("tcp6", ""), ("arp", ""), ("other", ""), ("tcp", "81006005")]
    sorts += [("icmp", "8100a000"), ("udp6", "88a8406481006005"), ("other", "88a8406481006005")]
    short = [whole(*("other", 15, "")), whole("udp", 60)[:34], whole("other", 17, "81006005")]
    return short + [whole(name, size, tag) for name, tag in sorts for size in (60, 1514)]


def test_rules_103_to_123_copies_of_every_frame(fan: Fan) -> None:
    """In every kind of tunnel, whole. Rule 114: the first sequence number is 0."""
    fan.mirror("select_src_port=@p1")
    fan.check(Case(), battery())


def test_departure_4_and_12_copies_are_cut_before(fan: Fan) -> None:
    """Rule 82: the outer headers are all there and say the length that is left."""
    fan.mirror("select_src_port=@p1")
    for snaplen in SNAPLENS:
        fan.each("mirror", f"snaplen={snaplen}")
        fan.check(Case(snaplen=snaplen), few())


def test_rules_103_to_123_frames_themselves(fan: Fan) -> None:
    """Flooded into every tunnel."""
    fan.check(Case(copy=False), battery())


def home(tunnel: Tunnel) -> bytes:
    """A MAC address beyond a tunnel."""
    return b"\x02\x07\0\0" + int(tunnel.name[1:]).to_bytes(2, "big")


def test_rule_59_a_frame_for_a_host_beyond_a_tunnel(fan: Fan) -> None:
    """It goes there alone, once that host has spoken; as any frame it takes the port's form."""
    fan.each("port", "vlan_mode=native-untagged tag=5")
    fan.site.ovs.vsctl("set port p1 tag=5 vlan_mode=native-tagged")
    native = replace(TRUNK, mode=VlanMode.NATIVE_UNTAGGED, tag=5)
    case = Case(replace(native, mode=VlanMode.NATIVE_TAGGED), tunnels=native, copy=False)
    fan.check(case, [whole("other", tag="81000005", dst=MAC2)])
    with fan.site.capture("p2") as flooded, fan.site.capture("p1") as heard:
        for tunnel in fan.tunnels:
            outer = replace(
                tunnel.sends,
                to_mac=tunnel.sends.from_mac,
                from_mac=tunnel.sends.to_mac,
                src=tunnel.sends.dst,
                dst=tunnel.sends.src,
                key=int(tunnel.name[1:]),
                sport=50000 if tunnel.sends.dport else None,
                inner=whole("other", src=home(tunnel), dst=MAC1),
            )
            fan.under.send(encode(outer))
            assert heard.collect(1, quiet=0.01)
            tagged = [whole("udp", n, "81006005", dst=home(tunnel)) for n in (60, 1514)]
            plain = [whole(name, dst=home(tunnel)) for name in ("arp", "tcp6", "other")]
            fan.check(case, tagged + plain, to=tunnel)
        assert flooded.collect(quiet=0.01) == []


MODES = [
    ("tag=5", replace(TRUNK, mode=VlanMode.ACCESS, tag=5)),
    (
        "tag=5 other_config:priority-tags=always",
        replace(TRUNK, mode=VlanMode.ACCESS, tag=5, priority_tags=PriorityTags.PRIORITY_ALWAYS),
    ),
    ("trunks=5", replace(TRUNK, trunks=frozenset({5}))),
    ("vlan_mode=native-tagged tag=5", replace(TRUNK, mode=VlanMode.NATIVE_TAGGED, tag=5)),
    ("vlan_mode=native-untagged tag=5", replace(TRUNK, mode=VlanMode.NATIVE_UNTAGGED, tag=5)),
    ("vlan_mode=dot1q-tunnel tag=100", replace(TRUNK, mode=VlanMode.DOT1Q_TUNNEL, tag=100)),
]


@pytest.mark.parametrize(("columns", "mode"), MODES)
def test_rules_36_to_38_modes_of_the_tunnel_port(fan: Fan, columns: str, mode: PortEntry) -> None:
    """The inner frame has the form of its port, and an ERSPAN header the VLAN it was selected by
    all the same; no mode keeps a copy out, but each keeps out frames of other VLANs (rule 74)."""
    fan.each("port", columns)
    case = Case(tunnels=mode, copy=False)
    fan.check(case, [frame for frame in few() if includes(mode, tags_of(frame))])
    fan.mirror("select_src_port=@p1")
    fan.check(replace(case, copy=True), few())
    fan.each("mirror", "snaplen=15")
    fan.check(replace(case, copy=True, snaplen=15), few())


def tags_of(frame: bytes) -> Tags:
    packet = parse(frame, 1)
    assert packet is not None
    return packet.tags


@pytest.mark.parametrize(("columns", "mode"), MODES)
def test_departure_5_the_vlan_is_that_of_the_selection(
    fan: Fan, columns: str, mode: PortEntry
) -> None:
    """Rule 18, by the mode of the port that the frame came in by; by source is direction 0."""
    fan.site.ovs.vsctl(f"set port p1 {columns}")
    fan.mirror("select_src_port=@p1")
    fan.check(Case(mode), [frame for frame in few() if admits(mode, tags_of(frame))])


@pytest.mark.parametrize(("columns", "mode"), MODES)
def test_departure_5_a_copy_of_what_leaves(fan: Fan, columns: str, mode: PortEntry) -> None:
    """Rules 17 and 18, by the mode of the port that the frame leaves by; direction 1."""
    fan.site.ovs.vsctl(f"set port p2 {columns}")
    fan.mirror("select_dst_port=@p2")
    frames = [frame for frame in few() if includes(mode, tags_of(frame))]
    fan.check(Case(sink=mode), [f for f in frames if admits(mode, outward(mode, tags_of(f), 0))])


def test_departure_5_source_wins(fan: Fan) -> None:
    """Of a frame that both columns select there is one copy, with direction 0."""
    fan.mirror("select_src_port=@p1 select_dst_port=@p2")
    fan.check(Case(), few())


@pytest.mark.parametrize(
    ("options", "tos", "ttl", "df"),
    [
        ("options:tos=inherit options:ttl=inherit", INHERIT, INHERIT, True),
        ("options:tos=0xb8 options:ttl=200", 0xB8, 200, True),
        ("options:ttl=1 options:df_default=false", 0, 1, False),
    ],
)
def test_rules_110_and_111_of_the_outer_ip_header(
    fan: Fan, options: str, tos: int, ttl: int, df: bool
) -> None:
    """Congestion met inside is not congestion met outside. ID is 0 where DF forbids fragments, and
    changes where there may be some."""
    fan.each("interface", options)
    fan.mirror("select_src_port=@p1")
    sends = [replace(t.sends, tos=tos, ttl=ttl, df=df and t.sends.df) for t in fan.tunnels]
    tunnels = [replace(t, sends=one) for t, one in zip(fan.tunnels, sends, strict=True)]
    seen = replace(fan, tunnels=tuple(tunnels)).check(Case(), [*marked(), whole("arp"), *few()])
    four = [outer for frame in seen if (outer := decode(frame.data)).family == 4]
    idents = {outer.ident for outer in four}
    assert (idents == {0}) if df else len(idents) > len(four) // 2


def marked() -> list[bytes]:
    """IP packets of every ECN and some DSCP and TTL."""
    frames = []
    for dscp, ecn, ttl, tag in product((0, 46), range(4), (1, 9), TAGS[:2]):
        tos, ports = dscp << 2 | ecn, UDP(sport=1000, dport=2000)
        four = IP(src="10.8.0.1", dst="10.8.0.2", tos=tos, ttl=ttl) / ports
        six = IPv6(src="fd08::1", dst="fd08::2", tc=tos, hlim=ttl) / ports
        for kind, packet in (b"\x08\0", four), (b"\x86\xdd", six):
            frames.append(MAC2 + MAC1 + bytes.fromhex(tag) + kind + bytes(packet / NOISE[:20]))
    return frames


def test_what_does_not_fit_is_cut_or_dropped(fan: Fan) -> None:
    """Copies are cut to the path's MTU and counted, with ERSPAN's truncated bit, or by an option
    dropped; a frame itself is never cut (D2, rule 122)."""
    fan.mirror("select_src_port=@p1")
    fan.settle(1500)
    at_the_edge = {1500 - tunnel.headers + n for tunnel in fan.tunnels for n in (0, 1)}
    frames = [whole("other", n) for n in sorted(at_the_edge)]
    frames += [whole("other", n - 4, "81006005") for n in sorted(at_the_edge)]
    frames += [*few(), whole("udp", JUMBO)]
    case = Case(mtu=1500)
    fan.check(case, frames)
    fan.each("mirror", "snaplen=1440")
    fan.check(replace(case, snaplen=1440), frames)
    fan.each("mirror", "snaplen", command="clear")
    fan.each("interface", "options:heliograph_mtu=drop")
    dropping = tuple(replace(tunnel, drops=True) for tunnel in fan.tunnels)
    replace(fan, tunnels=dropping).check(case, frames)
    fan.each("interface", "options:heliograph_mtu=cut")
    fan.unmirror()
    fan.check(replace(case, copy=False), frames)
    fan.mirror("select_src_port=@p1")
    fan.settle(MTU)
    fan.check(Case(), frames)


def test_a_udp_checksum_of_0_is_sent_as_ffff(fan: Fan) -> None:
    """0 would say that there is none (RFC 768), which IPv6 does not allow."""
    fan.mirror("select_src_port=@p1")
    frame = whole("other")[:20] + bytes(40)
    for tunnel in fan.tunnels:
        if tunnel.sends.kind == "vxlan" and tunnel.sends.csum:
            at = 14 + (40 if tunnel.sends.family == 6 else 20)
            for seen in fan.check(Case(), [frame]):
                if recognise(decode(seen.data)) == tunnel.mark:
                    missing = seen.data[at + 6 : at + 8]  # the word that makes the sum complete
            fan.check(Case(), [frame[:20] + missing + frame[22:]])


def test_flows_differ_in_their_udp_source_port(fan: Fan) -> None:
    """So that they may take different ways; each keeps to one (`Fan.check`)."""
    fan.check(Case(copy=False), [whole(name, n) for n in (60, 1514) for name in CONTENTS])
    for tunnel in fan.tunnels:
        ports = {port for (name, _), port in fan.flows.items() if name == tunnel.name}
        assert len(ports) > len(CONTENTS) // 2 or tunnel.sends.kind != "vxlan"


def test_rules_32_and_41_copies_of_what_goes_into_a_tunnel(fan: Fan) -> None:
    """They are of the inner frame; and so is one that goes into another tunnel, of what leaves."""
    first, second = (next(t for t in fan.tunnels if t.sends.kind == k) for k in ("gre", "erspan2"))
    sent, case = [whole("udp"), whole("tcp", 1514, "81006005")], Case(sink=TRUNK)
    fan.site.ovs.vsctl(
        f"-- --id=@a get port {first.name} -- --id=@b get port {second.name} -- --id=@2 get port p2"
        " -- --id=@m create mirror name=m select_dst_port=@a output_port=@b"
        " -- --id=@n create mirror name=n select_dst_port=@b output_port=@2"
        " -- set bridge br0 mirrors=@m,@n"
    )
    with fan.under.capture() as capture, fan.site.capture("p2") as copies:
        fan.site.send("p1", *sent)
        assert [frame.data for frame in copies.collect(2)] == sent
        count = 2 * len(fan.tunnels)
        carried = fan.carried(capture.collect(count, keep=is_tunnelled, quiet=0.05))
    assert [outer.inner for outer in carried[first.name]] == sent
    for frame, outer in zip(sent, carried[second.name], strict=True):
        wanted = case.outer(second, frame)
        assert wanted
        assert (outer.inner, outer.erspan) == (frame, timed(wanted, outer).erspan)


def timed(wanted: Outer, found: Outer) -> Outer:
    """With the time that was found."""
    assert wanted.erspan
    assert found.erspan
    return replace(wanted, erspan=replace(wanted.erspan, timestamp=found.erspan.timestamp))


@pytest.mark.parametrize("tag", ["", "81006005"])
def test_rule_46_an_output_vlan_leads_into_tunnels(fan: Fan, tag: str) -> None:
    """There the frame has that VLAN, and an ERSPAN header says the one it was selected by (D5)."""
    fan.each("port", "trunks=77")
    fan.site.ovs.vsctl(
        "-- --id=@1 get port p1 -- --id=@m create mirror name=m select_src_port=@1 output_vlan=77"
        " -- set bridge br0 mirrors=@m"
    )
    with fan.under.capture() as capture:
        fan.site.send("p1", whole("udp", tag=tag))
        carried = fan.carried(capture.collect(len(fan.tunnels), keep=is_tunnelled, quiet=0.05))
    for tunnel in fan.tunnels:
        (outer,) = carried[tunnel.name]
        assert outer.inner == whole("udp", tag=f"8100{'6' if tag else '0'}04d")
        if outer.erspan:
            assert (outer.erspan.vlan, outer.erspan.cos) == ((5, 3) if tag else (0, 0))


def test_tshark_reads_what_was_meant(fan: Fan) -> None:
    """Every field of every kind of header, and no bad checksum or length outside or inside."""
    names = ("udp", "tcp", "icmp", "udp6", "tcp6", "icmp6")
    frames = [whole(name, 70, tag) for name in names for tag in ("", "81006005")]
    frames += [whole("tcp", 1514), whole("arp"), whole("udp6", 1514, "88a8406481006005")]
    fan.mirror("select_src_port=@p1")
    seen = fan.check(Case(), frames)
    fan.each("mirror", "snaplen=64")
    cut = fan.check(Case(snaplen=64), frames[-3:])
    read = tshark.decode(seen + cut)
    for frame, found in zip(seen + cut, read, strict=True):
        assert fields(found) == expected(decode(frame.data))
    # Of the rest of an inner packet that is cut it can only say that it is not there.
    for frame, found in zip(seen, read, strict=False):
        outer, sums = decode(frame.data), found.checksums
        bare = outer.kind == "vxlan" and outer.family == 6 and not outer.csum  # RFC 6935
        assert found.errors == ["Illegal checksum value (0)"] * bare
        assert len(sums.get("ip", [])) == len(found["ip.src"])
        good = {tshark.GOOD, "3"} | ({"4"} if bare else set())  # no sum; 0 and IPv6
        assert {status for said in sums.values() for status in said} <= good
