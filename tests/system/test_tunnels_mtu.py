# SPDX-License-Identifier: Apache-2.0
"""Copies and frames that do not fit the path of their tunnel: copies are cut and counted, or, if so
configured, dropped and counted; frames are dropped, never cut. Nothing is lost in silence (D2)."""

from collections.abc import Iterator
from functools import partial

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from tests.oracle.tunnel import decode
from tests.system.remote_span import RemoteSpan, outers
from tests.system.site import BROADCAST, data, frame
from tests.system.underlay import BEYOND, DEVICE, FAR, is_tunnelled
from tools.lab.capture import Capture
from tools.lab.flow import transfer
from tools.lab.lab import Lab

# Type, options and remote of a tunnel, and the bytes that it adds to a frame's (rules 104, 116).
TUNNELS = [
    ("gre", "", FAR.ipv4, 24),
    ("gre", "options:key=1 options:csum=true options:seq=true", FAR.ipv6, 56),
    ("erspan", "options:erspan_ver=1 options:key=1", FAR.ipv4, 36),
    ("erspan", "options:erspan_ver=2 options:key=1", FAR.ipv6, 60),
    ("vxlan", "options:key=1", FAR.ipv4, 36),
]
PATH = 1280
GRE = 24  # bytes that the simplest tunnel adds
STREAM = 1_000_000


@pytest.fixture(scope="module")
def made(tokens: list[str]) -> Iterator[RemoteSpan]:
    with Lab() as lab:
        tokens.append(lab.token)
        rig = RemoteSpan(lab)
        for number in 1, 2:
            rig.site.guests[f"tap{number}"].ip(f"address add 10.8.0.{number}/24 dev tap{number}")
        yield rig
        print(rig.switch.process.log_text())


@pytest.fixture
def span(made: RemoteSpan) -> Iterator[RemoteSpan]:
    made.under.mend()
    yield made
    made.clear()


def sized(*lengths: int) -> list[bytes]:
    return [frame(length=length) for length in lengths]


@pytest.mark.parametrize(("kind", "options", "remote", "outer"), TUNNELS)
def test_copies_are_cut_to_the_path(
    span: RemoteSpan, kind: str, options: str, remote: str, outer: int
) -> None:
    """To the byte, said in an ERSPAN header (rule 118); what is cut counts as delivered, and the
    frames themselves are whole."""
    span.under.set_mtu(PATH)
    span.mirror(kind, options, remote=remote)
    fits = PATH - outer
    tagged = [frame(tag="8100 6005", length=length) for length in (fits - 4, fits - 3, 1514)]
    sent = sized(60, fits - 1, fits, fits + 1, 1514) + tagged
    with span.under.capture() as seen, span.site.capture("tap2") as two:
        span.site.send("tap1", *sent)
        found = outers(seen, len(sent))
        assert data(two.collect(len(sent))) == sent
    assert [one.inner for one in found] == [one[:fits] for one in sent]
    is_cut = [len(one) > fits for one in sent]
    if kind == "erspan":
        assert [bool(one.erspan and one.erspan.truncated) for one in found] == is_cut
    octets = sum(map(len, sent))
    counted = {"tx_packets": len(sent), "tx_bytes": octets, "cut_mtu": sum(is_cut)}
    assert span.site.live("m0") == counted
    port = span.site.live(span.PORT, "port")
    assert (port["tx_packets"], port["cut_mtu"]) == (len(sent), sum(is_cut))
    assert port["tx_bytes"] == sum(len(one.inner) for one in found)


@pytest.mark.parametrize("column", ["options", "external_ids"])
def test_copies_are_dropped_if_so_configured(span: RemoteSpan, column: str) -> None:
    """In external_ids too, for databases that refuse the option; a change holds at once (D3)."""
    span.under.set_mtu(PATH)
    span.mirror(options=f"{column}:heliograph_mtu=drop")
    fits, longer = sized(PATH - GRE, PATH - GRE + 1)
    with span.under.capture() as seen:
        span.site.send("tap1", fits, longer)
        assert [one.inner for one in outers(seen, 1)] == [fits]
        octets = len(fits + longer)
        assert span.site.live("m0") == {"tx_packets": 2, "tx_bytes": octets, "drop_mtu": 1}
        assert span.site.live(span.PORT, "port")["drop_mtu"] == 1
        span.ovs.vsctl(f"set interface {span.PORT} {column}:heliograph_mtu=cut")
        span.site.send("tap1", longer)
        assert [one.inner for one in outers(seen, 1)] == [longer[:-1]]
        span.ovs.vsctl(f"set interface {span.PORT} {column}:heliograph_mtu=drop")
        span.site.send("tap1", longer)
        assert outers(seen) == []
    wanted = {"tx_packets": 4, "drop_mtu": 2, "cut_mtu": 1}
    assert wanted.items() <= span.site.live("m0").items()


def test_frames_are_never_cut(span: RemoteSpan) -> None:
    """A tunnel as an ordinary port: who gets a frame gets all of it (rule 122)."""
    span.under.set_mtu(PATH)
    span.mirror(options="options:heliograph_mtu=cut")
    span.ovs.vsctl("clear bridge br0 mirrors")
    sent = [frame(BROADCAST, length=length) for length in (PATH - GRE, PATH - GRE + 1, 1514)]
    with span.under.capture() as seen, span.site.capture("tap2") as two:
        span.site.send("tap1", *sent)
        assert [one.inner for one in outers(seen, 1)] == sent[:1]
        assert data(two.collect(3)) == sent
    port = span.site.live(span.PORT, "port")
    assert (port["tx_packets"], port["drop_mtu"], port.get("cut_mtu")) == (1, 2, None)


def fit(span: RemoteSpan, seen: Capture, mtu: int) -> bool:
    """Whether copies have exactly the length that an MTU lets them have, now."""
    span.site.send("tap1", frame(length=1514))
    (copy,) = seen.collect(1, keep=is_tunnelled, quiet=0.02)
    return len(decode(copy.data).inner) == mtu - GRE


def test_mtu_changes(span: RemoteSpan) -> None:
    """Of the device, and of the route, whichever is less; each counts within a second."""
    host = span.under.host
    way = f"route {{}} {BEYOND.ipv4} via {FAR.ipv4} {{}}"
    host.ip(way.format("add", ""))
    span.mirror(remote=BEYOND.ipv4)
    with span.under.capture() as seen:
        for words, mtu in (
            (f"link set {DEVICE} mtu 1400", 1400),
            (way.format("change", "mtu 1300"), 1300),
            (way.format("change", "mtu lock 1200"), 1200),
            (f"link set {DEVICE} mtu 1100", 1100),
            (f"link set {DEVICE} mtu 1500", 1200),
            (f"link set {DEVICE} mtu 68", 68),
        ):
            host.ip(words)
            span.until(partial(fit, span, seen, mtu))
        assert outers(seen) == []
    host.ip(f"link set {DEVICE} mtu 1500")
    host.ip(f"route replace {BEYOND.ipv4} via {FAR.ipv4}")
    host.ip(f"route del {BEYOND.ipv4}")


@pytest.mark.parametrize("remote", [FAR.ipv4, FAR.ipv6])
def test_every_segment_of_a_stream_arrives(span: RemoteSpan, remote: str) -> None:
    """Super-frames of full segments over an underlay whose MTU is a guest's: each one's copy is
    cut, and the stream does not notice (D10)."""
    span.under.set_mtu(1500)
    span.mirror("erspan", "options:erspan_ver=2 options:key=1", remote=remote)
    guests = span.site.guests
    with span.under.capture() as seen:
        transfer(guests["tap1"], guests["tap2"], "10.8.0.2", STREAM)
        found = outers(seen)
    counted = span.site.live("m0")
    assert counted["tx_packets"] == len(found)
    assert not any(key.startswith("drop_") for key in counted)
    assert [one.seq for one in found] == list(range(len(found)))
    cut = [one for one in found if one.erspan and one.erspan.truncated]
    assert counted["cut_mtu"] == len(cut) > STREAM // 1500
    assert {len(one.inner) for one in cut} == {1500 - (40 if remote == FAR.ipv4 else 60)}
    covered: set[int] = set()
    for packet in (Ether(one.inner) for one in found):
        if TCP in packet:  # the header says how long the segment was
            length = packet[IP].len - 20 - packet[TCP].dataofs * 4
            covered.update(range(packet[TCP].seq, packet[TCP].seq + length))
    assert len(covered) == STREAM
