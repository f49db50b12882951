# SPDX-License-Identifier: Apache-2.0
"""Tunnels with Open vSwitch's userspace datapath at the other end.

Each guest says the same frames with the same options on both switches. So the outer headers that
Open vSwitch sends say what ours are to be; `as_ours` lists all in which they differ.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from tests.oracle.tunnel import Erspan, Malformed, Outer, decode
from tests.system.site import Site, data, frame, mirror, silence
from tests.system.underlay import DEVICE, FAR, FarOvs, is_tunnelled
from tools.lab.capture import Capture
from tools.lab.flow import transfer
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab
from tools.lab.openvswitch import Tools

PORT = FarOvs.PORT
MACS = {"dst": "02:00:00:00:00:02", "src": "02:00:00:00:00:01"}
TAGGED = frame(tag="8100 6005")  # VLAN 5, PCP 3
LONG = frame(tag="8100 6005", length=1514)
TINY = frame(length=18)
FRAMES = [
    frame(),
    TAGGED,
    LONG,
    bytes(Ether(**MACS) / ARP(psrc="10.7.0.9", pdst="10.7.0.8")),
    # DSCP 46 and congestion experienced; DSCP 10 and ECT(1).
    bytes(Ether(**MACS) / IP(src="10.7.0.9", dst="10.7.0.8", tos=0xBB, ttl=9) / UDP() / bytes(50)),
    bytes(Ether(**MACS) / IPv6(src="fd07::9", dst="fd07::8", tc=0x29, hlim=7) / UDP() / bytes(50)),
]
KEYED = "type=gre options:key=0x1000"
ERSPAN_1 = "type=erspan options:erspan_ver=1 options:erspan_idx=abcde options:key=1023"
ERSPAN_2 = "type=erspan options:erspan_ver=2 options:key=5 options:erspan_hwid=2a"
VXLAN = "type=vxlan options:key=77"
TUNNELS = [
    "type=gre",
    KEYED,
    "type=gre options:csum=true",
    "type=gre options:seq=true",
    "type=gre options:in_key=5 options:out_key=5 options:csum=true options:ttl=7 options:tos=0xb8",
    "type=gre options:key=0 options:seq=true options:ttl=inherit options:tos=inherit",
    "type=gre options:key=flow options:df_default=false",
    ERSPAN_1,
    f"{ERSPAN_2} options:erspan_dir=1",
    f"{ERSPAN_2} options:erspan_dir=0 options:tos=inherit",
    "type=erspan options:erspan_ver=1 options:key=flow options:erspan_idx=flow",
    "type=vxlan",
    f"{VXLAN} options:dst_port=8472 options:csum=true",
]
MIRRORED = [KEYED, ERSPAN_1, ERSPAN_2, VXLAN]
OURS, THEIRS = "10.7.0.1", "10.7.0.2"
SIZE = 1_000_000
QUIET = 0.03
FAMILIES = pytest.mark.parametrize("ipv6", [False, True], ids=["ipv4", "ipv6"])
UNITS = {0: 100e-6, 1: 100e-9}  # of ERSPAN's timestamps, in seconds, by granularity


Passage = tuple[list[bytes], list[Outer]]  # the frames that arrived, and the outer packets


@dataclass
class Joined:
    """A Heliograph whose bridge br0 has the guest tap1, and an Open vSwitch with one."""

    site: Site
    far: FarOvs

    @classmethod
    def build(cls, lab: Lab) -> "Joined":
        switch = Heliograph(lab)
        switch.start()
        silence(switch.host)
        far = FarOvs(lab, switch.host)
        site = Site(lab, switch, Tools(switch.rundir), {})
        site.ovs.vsctl("add-br br0")
        site.add("br0", "tap1")
        for host, local in (switch.host, "br0"), (far.host, "br-int"):
            host.ip(f"link set {local} up")
            host.going()
        return cls(site, far)

    def tunnel(self, words: str, *, ipv6: bool = False) -> None:
        """(Re)make it at both ends, without mirrors; `words` as in TUNNELS."""
        self.far.tunnel(words, ipv6=ipv6)
        remote = FAR.ipv6 if ipv6 else FAR.ipv4
        self.site.ovs.vsctl(
            f"clear bridge br0 mirrors -- --if-exists del-port {PORT} -- add-port br0 {PORT}"
            f" -- set interface {PORT} {words} options:remote_ip={remote}"
        )
        assert self.site.ovs.vsctl(f"get interface {PORT} error") == "[]"

    def mirror(self, columns: str) -> None:
        """The mirror of br0; `columns` may name @tunnel and @local, its ports."""
        words = mirror("m0", "br0", columns)
        ports = f"-- --id=@tunnel get port {PORT} -- --id=@local get port br0"
        self.site.ovs.vsctl(f"{ports} {words}")

    def outer(self) -> Capture:
        """What comes to us by the wire."""
        return Capture(self.site.switch.host, DEVICE)

    def there(self, *frames: bytes, arrive: int | None = None) -> Passage:
        """Our guest says something; `arrive` frames are to arrive, all if it is not given."""
        with self.far.outer() as outer, self.far.capture() as inner:
            self.site.send("tap1", *frames)
            return _passage(outer, inner, frames, arrive)

    def back(self, *frames: bytes, arrive: int | None = None) -> Passage:
        """The other guest says something."""
        with self.outer() as outer, self.site.capture("tap1") as inner:
            self.far.send(*frames)
            return _passage(outer, inner, frames, arrive)


def _passage(
    outer: Capture, inner: Capture, frames: tuple[bytes, ...], arrive: int | None
) -> Passage:
    packets = outer.collect(len(frames), keep=is_tunnelled, quiet=QUIET)
    arrived = inner.collect(len(frames) if arrive is None else arrive, quiet=QUIET)
    return data(arrived), [decode(one.data) for one in packets]


@pytest.fixture(scope="module")
def joined(tokens: list[str]) -> Iterator[Joined]:
    with Lab() as lab:
        tokens.append(lab.token)
        yield Joined.build(lab)


def as_ours(theirs: Outer, ours: Outer) -> Outer:
    """What we are to send where Open vSwitch sends `theirs`."""
    return replace(
        theirs,
        # It goes the other way.
        to_mac=theirs.from_mac,
        from_mac=theirs.to_mac,
        src=theirs.dst,
        dst=theirs.src,
        # Open vSwitch sends a burst in the order of its flows.
        seq=ours.seq,
        # Each has its own hash of what is inside.
        sport=ours.sport,
        # Where there may be fragments it says which belong together (RFC 6864); theirs is 0.
        ident=theirs.ident if theirs.df else ours.ident,
        erspan=theirs.erspan and ours.erspan and erspan_as_ours(theirs, ours.erspan.timestamp),
    )


def erspan_as_ours(theirs: Outer, timestamp: int) -> Erspan:
    """Rule 117 says what Open vSwitch leaves at 0, D5 what has to be there."""
    assert theirs.erspan is not None
    tagged = theirs.inner[12:14] == b"\x81\0"
    tag = int.from_bytes(theirs.inner[14:16], "big") if tagged else 0
    known = replace(theirs.erspan, vlan=tag & 0xFFF, cos=tag >> 13)
    if theirs.kind == "erspan1":
        return replace(known, encapsulation=3 if tagged else 0)
    short = len(theirs.inner) < 60
    return replace(known, bso=1 if short else 0, p=1, granularity=1, timestamp=timestamp)


def age(header: Erspan) -> float:
    """Seconds since the time in it."""
    unit = UNITS[header.granularity]
    return (time.time() - header.timestamp * unit) % (unit * 2**32)


@pytest.mark.parametrize(
    ("words", "ipv6"),
    [*product(TUNNELS, [False, True]), (ERSPAN_1.replace("erspan", "ip6erspan", 1), True)],
)
def test_each_takes_what_the_other_sends_and_sends_the_same(
    joined: Joined, words: str, ipv6: bool
) -> None:
    """Rules 104 to 111, 114 to 117, 119 to 121 and 123; departure D5."""
    joined.tunnel(words, ipv6=ipv6)
    arrived, ours = joined.there(*FRAMES)
    assert sorted(arrived) == sorted(FRAMES)
    assert [one.inner for one in ours] == FRAMES
    arrived, theirs = joined.back(*FRAMES)
    assert sorted(arrived) == sorted(FRAMES)
    assert [one.seq for one in ours] == [other.seq for other in theirs]
    by_inner = {other.inner: other for other in theirs}
    for one in ours:
        other = by_inner[one.inner]
        assert one == as_ours(other, one)
        assert one.sport is None or 32768 <= one.sport <= 61000
        for header in (one.erspan, other.erspan) if one.kind == "erspan2" else ():
            assert header is not None
            assert age(header) < 10


@FAMILIES
def test_open_vswitch_sends_a_wrong_checksum_with_a_sequence_number(
    joined: Joined, ipv6: bool
) -> None:
    """It takes ours (rules 104 and 109); of its own only number 0 is right, and we take that."""
    joined.tunnel("type=gre options:csum=true options:seq=true", ipv6=ipv6)
    arrived, ours = joined.there(TAGGED, TAGGED, TAGGED)
    assert arrived == [TAGGED] * 3
    assert [one.seq for one in ours] == [0, 1, 2]
    with joined.outer() as outer, joined.site.capture("tap1") as inner:
        joined.far.send(TAGGED, TAGGED)
        first, second = outer.collect(2, keep=is_tunnelled, quiet=QUIET)
        assert data(inner.collect(1)) == [TAGGED]
    assert decode(first.data) == as_ours(ours[0], ours[0])
    with pytest.raises(Malformed, match="GRE checksum"):
        decode(second.data)
    counts = joined.site.live(PORT, "port")
    assert (counts["rx_packets"], counts["rx_dropped"], counts["drop_checksum"]) == (1, 1, 1)


@FAMILIES
@pytest.mark.parametrize("words", MIRRORED)
def test_open_vswitch_gets_our_copies(joined: Joined, words: str, ipv6: bool) -> None:
    """Rules 51, 82 and 103; departures D4 and D5: each once, and cut before it goes in."""
    joined.tunnel(words, ipv6=ipv6)
    joined.mirror("select_all=true output_port=@tunnel")
    arrived, whole = joined.there(TAGGED, LONG)
    assert sorted(arrived) == sorted([TAGGED, LONG])
    joined.mirror("select_all=true output_port=@tunnel snaplen=100")
    arrived, cut = joined.there(TAGGED, LONG)
    assert sorted(arrived) == sorted([TAGGED, LONG[:100]])
    counts = joined.site.live("m0")
    assert counts == {"tx_packets": 2, "tx_bytes": len(TAGGED) + len(LONG)}
    headers = [one.erspan for one in (*whole, *cut) if one.erspan]
    assert [one.truncated for one in headers] in ([], [0, 0, 0, 1])
    assert not any(one.direction for one in headers)  # all by their source
    assert joined.back(TAGGED, arrive=0)[0] == []
    assert joined.site.live(PORT, "port")["drop_reserved_port"] == 1


@FAMILIES
@pytest.mark.parametrize("words", MIRRORED)
def test_we_get_the_copies_of_open_vswitch(joined: Joined, words: str, ipv6: bool) -> None:
    """Rules 51 and 103: each once. Rule 82: with a snaplen it cuts the outer packet, which then is
    shorter than it says; of those we take none."""
    joined.tunnel(words, ipv6=ipv6)
    joined.far.mirror("select_all=true output_port=@tunnel")
    assert sorted(joined.back(TAGGED, LONG)[0]) == sorted([TAGGED, LONG])
    assert joined.there(TAGGED, arrive=0)[0] == []
    joined.far.mirror("select_all=true output_port=@tunnel snaplen=100")
    with joined.outer() as outer, joined.site.capture("tap1") as inner:
        joined.far.send(TINY, LONG)
        packets = outer.collect(2, keep=is_tunnelled, quiet=QUIET)
        assert data(inner.collect(1, quiet=QUIET)) == [TINY]
    assert max(len(one.data) for one in packets) == 100
    assert joined.site.live(PORT, "port")["drop_malformed"] == 1


@pytest.mark.parametrize("words", [KEYED, ERSPAN_2])
def test_mirrors_see_what_is_in_a_tunnel(joined: Joined, words: str) -> None:
    """Rule 41, and of what comes out of one likewise: the same on both switches."""
    joined.tunnel(words)
    ours, theirs = (joined.site.switch.host, "br0"), (joined.far.host, "br-int")
    for column, sees in ("select_src_port", (theirs, ours)), ("select_dst_port", (ours, theirs)):
        for switch in joined, joined.far:
            switch.mirror(f"{column}=@tunnel output_port=@local")
        for send, watched in zip((joined.there, joined.back), sees, strict=True):
            with Capture(*watched) as seen:
                send(*FRAMES)
                assert sorted(data(seen.collect(len(FRAMES), quiet=QUIET))) == sorted(FRAMES)


@pytest.mark.parametrize(
    ("columns", "carried", "arriving"),
    [
        ("tag=5", "", "8100 0005"),
        ("vlan_mode=native-tagged tag=5", "8100 6005", "8100 6005"),
        ("vlan_mode=native-untagged tag=5", "", "8100 0005"),
        ("vlan_mode=dot1q-tunnel tag=5", "", "88a8 0005"),
    ],
)
def test_a_tunnel_port_has_its_vlan_mode(
    joined: Joined, columns: str, carried: str, arriving: str
) -> None:
    """Rules 36 and 37 on both switches; departure D5: the VLAN is told even if the tag is gone."""
    joined.tunnel(ERSPAN_1)
    for tools in joined.site.ovs, joined.far.tools:
        tools.vsctl(f"set port {PORT} {columns}")
    for pass_on in joined.there, joined.back:
        arrived, (outer,) = pass_on(TAGGED)
        assert outer.inner == frame(tag=carried)
        assert arrived == [frame(tag=arriving)]
        if pass_on == joined.there:
            tag = 3 if carried else 0
            assert outer.erspan == Erspan(vlan=5, cos=3, encapsulation=tag, index=0xABCDE)


@pytest.mark.parametrize(("words", "ipv6"), list(zip(MIRRORED, [False, True] * 2, strict=True)))
def test_guests_talk_through_a_tunnel(joined: Joined, words: str, ipv6: bool) -> None:
    """Super-frames of our guest included."""
    ends = (joined.site.guests["tap1"], "tap1", OURS), (joined.far.guest, "eth0", THEIRS)
    for guest, device, address in ends:
        guest.ip(f"address add {address}/24 dev {device}")
    try:
        joined.tunnel(words, ipv6=ipv6)
        (here, _, _), (there, _, _) = ends
        assert here.ping(THEIRS) == 3
        transfer(here, there, THEIRS, SIZE)
        transfer(there, here, OURS, SIZE)
    finally:
        for guest, device, _ in ends:
            guest.ip(f"address flush dev {device}")
    counts = joined.site.live(PORT, "port")
    assert min(counts["rx_bytes"], counts["tx_bytes"]) > SIZE
    assert (counts["rx_dropped"], counts["tx_dropped"]) == (0, 0)
