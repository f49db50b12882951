# SPDX-License-Identifier: Apache-2.0
"""Options of tunnel ports that cannot be: each is told its user and harms nobody else."""

from collections.abc import Iterator

import pytest
from tests.system.remote_span import RemoteSpan, Traffic, outers
from tests.system.site import frame
from tests.system.underlay import FAR, NEAR
from tools.lab.capture import Capture
from tools.lab.lab import Lab

# Type, options, what mends them, and words of the error. An option named twice has its last value.
BAD = [
    ("gre", "", f"remote_ip={FAR.ipv4}", "options:remote_ip is missing"),
    ("gre", "remote_ip=224.0.0.5", f"remote_ip={FAR.ipv4}", "is a multicast address"),
    ("gre", "remote_ip=ff02::5", f"remote_ip={FAR.ipv6}", "is a multicast address"),
    ("gre", "remote_ip=255.255.255.255", f"remote_ip={FAR.ipv4}", "the broadcast address"),
    ("gre", "remote_ip=0.0.0.0", f"remote_ip={FAR.ipv4}", "the unspecified address"),
    ("gre", "remote_ip=127.0.0.1", f"remote_ip={FAR.ipv4}", "is a loopback address"),
    ("gre", "remote_ip=fe80::2", f"remote_ip={FAR.ipv6}", "valid on one link only"),
    ("gre", "remote_ip=10.9.0.256", f"remote_ip={FAR.ipv4}", "is not an IP address"),
    ("gre", "remote_ip=collector", f"remote_ip={FAR.ipv4}", "is not an IP address"),
    ("gre", f"local_ip={NEAR.ipv6} remote_ip={FAR.ipv4}", f"local_ip={NEAR.ipv4}", "family"),
    ("gre", f"local_ip={NEAR.ipv4} remote_ip={FAR.ipv6}", f"local_ip={NEAR.ipv6}", "family"),
    ("gre", f"local_ip=flow remote_ip={FAR.ipv4}", f"local_ip={NEAR.ipv4}", "remote_ip=flow only"),
    ("gre", f"remote_ip={FAR.ipv4} key=4294967296", "key=4294967295", "from 0 to 4294967295"),
    ("gre", f"remote_ip={FAR.ipv4} key=-1", "key=0", "from 0 to 4294967295"),
    ("gre", f"remote_ip={FAR.ipv4} in_key=0x1000g", "in_key=0x1000", "is not a number"),
    ("gre", f"remote_ip={FAR.ipv4} out_key=ten", "out_key=flow", "is not a number"),
    ("gre", f"remote_ip={FAR.ipv4} key=1 ttl=256", "ttl=255", "from 0 to 255"),
    ("gre", f"remote_ip={FAR.ipv4} key=1 tos=0x3", "tos=inherit", "ECN bits"),
    ("gre", f"remote_ip={FAR.ipv4} key=1 heliograph_mtu=split", "heliograph_mtu=drop", "nor drop"),
    ("ip6gre", f"remote_ip={FAR.ipv4} key=1", f"remote_ip={FAR.ipv6}", "is IPv4"),
    ("erspan", f"remote_ip={FAR.ipv4}", "erspan_ver=1", "erspan_ver is missing"),
    ("erspan", f"remote_ip={FAR.ipv4} erspan_ver=3", "erspan_ver=2", "neither 1 nor 2"),
    ("erspan", f"remote_ip={FAR.ipv4} erspan_ver=1 key=1024", "key=1023", "from 0 to 1023"),
    (
        "erspan",
        f"remote_ip={FAR.ipv4} erspan_ver=1 erspan_idx=100000",
        "erspan_idx=fffff",
        "from 0x0 to 0xfffff (hexadecimal)",
    ),
    (
        "erspan",
        f"remote_ip={FAR.ipv4} erspan_ver=2 erspan_hwid=40",
        "erspan_hwid=3f",
        "from 0x0 to 0x3f",
    ),
    ("erspan", f"remote_ip={FAR.ipv4} erspan_ver=2 erspan_dir=2", "erspan_dir=1", "from 0 to 1"),
    ("ip6erspan", f"remote_ip={FAR.ipv4} erspan_ver=2", f"remote_ip={FAR.ipv6}", "is IPv4"),
    ("vxlan", f"remote_ip={FAR.ipv4} key=16777216", "key=16777215", "from 0 to 16777215"),
    ("vxlan", f"remote_ip={FAR.ipv4} dst_port=65536", "dst_port=65535", "from 1 to 65535"),
    ("gre", f"remote_ip={FAR.ipv4} psk=secret", "", "IPsec, which is not supported"),
]


@pytest.fixture(scope="module")
def span(tokens: list[str]) -> Iterator[RemoteSpan]:
    with Lab() as lab:
        tokens.append(lab.token)
        made = RemoteSpan(lab)
        made.under.ready()
        yield made
        print(made.switch.process.log_text())


def options(words: str) -> str:
    return " ".join(f"options:{word}" for word in words.split())


def told(span: RemoteSpan, interface: str) -> tuple[str, int]:
    """Its error and its ofport."""
    error, ofport = span.ovs.vsctl(f"get interface {interface} error ofport").splitlines()
    return error, int(ofport)


def test_each_bad_option_is_an_error_and_mending_it_heals(span: RemoteSpan) -> None:
    """Rules 105, 106, 110, 119, 120, 123: the real ovs-vsctl prints it, and a mirror into another
    tunnel loses nothing over all of it."""
    span.mirror("erspan", "options:erspan_ver=1 options:key=1 options:erspan_idx=abcde")
    with Traffic(span) as traffic:
        for kind, bad, good, words in BAD:
            case = f"{kind} {bad}"
            printed = span.ovs.try_vsctl(
                "--if-exists del-port bad0 -- add-port br0 bad0"
                f" -- set interface bad0 type={kind} {options(bad)}"
            )
            assert printed.returncode == 0, case
            assert "Error detected while setting up 'bad0'" in printed.stderr, case
            error, ofport = told(span, "bad0")
            assert words in error, case
            assert error.strip('"') in printed.stderr.replace('"', '\\"'), case
            assert ofport == -1, case
            mended = f"set interface bad0 {options(good)}"
            span.ovs.vsctl(mended if good else "remove interface bad0 options psk")
            error, ofport = told(span, "bad0")
            assert (error, ofport > 0) == ("[]", True), case
        span.ovs.vsctl("del-port bad0")
        traffic.settle()
        assert traffic.drops == {}


def test_the_first_of_two_ports_that_receive_the_same(span: RemoteSpan) -> None:
    """Rule 112: it goes on; those that come later are told, and work with a key of their own."""
    words = f"type=gre options:remote_ip={FAR.ipv4} options:key=5"
    span.mirror("gre", "options:key=5")
    rivals = [f"a-rival{number}" for number in range(3)]
    with Traffic(span) as traffic:
        traffic.sends()
        added = [f"-- add-port br0 {name} -- set interface {name} {words}" for name in rivals]
        printed = span.ovs.try_vsctl(" ".join(added))
        assert printed.stderr.count(f"receives exactly what interface {span.PORT} receives") == 3
        traffic.sends()
        for number, name in enumerate(rivals):
            span.ovs.vsctl(f"set interface {name} options:in_key={number + 6}")
            assert told(span, name)[0] == "[]"
        span.ovs.vsctl(" ".join(f"-- del-port {name}" for name in rivals))
        traffic.settle()
        assert traffic.drops == {}


def test_a_good_tunnel_turns_bad_and_good_again(span: RemoteSpan) -> None:
    """Its copies are counted meanwhile (D2), and the mirror says why (D1)."""
    span.mirror("erspan", "options:erspan_ver=1 options:key=7")
    with Traffic(span) as traffic:
        traffic.sends()
        span.ovs.vsctl(f"set interface {span.PORT} options:key=1024")
        assert "options:key='1024'" in span.interface("error")
        assert span.interface("ofport") == "-1"
        assert "options:key='1024'" in span.said()[0]
        traffic.sends()
        assert span.ovs.try_vsctl(f"set interface {span.PORT} options:key=1023").stderr == ""
        assert span.said() == ("", "")
        traffic.sends()
        traffic.settle()
        assert traffic.drops.keys() <= {"drop_no_device", "drop_not_ready"}
        assert sum(traffic.drops.values()) >= 50


@pytest.mark.parametrize("remote", [NEAR.ipv4, NEAR.ipv6])
def test_remote_that_is_our_own_address(span: RemoteSpan, remote: str) -> None:
    """It may be another host's tomorrow, so the port is one, and says why it sends nothing."""
    span.mirror(remote=remote)
    assert span.interface("error") == "[]"
    assert all("is an address of this host itself" in said for said in span.said())
    with span.under.capture() as seen, Capture(span.switch.host, "lo") as lo:
        span.site.send("tap1", *[frame()] * 10)
        assert span.site.live("m0") == {"tx_packets": 10, "tx_bytes": 600, "drop_no_route": 10}
        assert outers(seen) == []
        assert lo.collect() == []
