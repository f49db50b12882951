# SPDX-License-Identifier: Apache-2.0
"""Options of tunnel ports (rules 103-123), and what is said of those that cannot work."""

from dataclasses import asdict
from ipaddress import ip_address
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.switch.conftest import Rows

from heliograph.errors import HeliographError
from heliograph.switch import tunnels
from heliograph.switch.intent import Interface
from heliograph.switch.tunnels import Kind, Tunnel

FAR, FAR6 = "192.0.2.1", "2001:db8::1"


def interface(words: str, name: str = "t0") -> Interface:
    """The Interface row that "TYPE OPTION=VALUE ..." makes; FAR unless remote_ip is given."""
    type_name, *pairs = words.split()
    options = {"remote_ip": FAR} | dict(pair.split("=", 1) for pair in pairs)
    return made(type_name, {k: v for k, v in options.items() if v != "ABSENT"}, name)


def made(type_name: str, options: dict[str, str], name: str = "t0") -> Interface:
    return Interface(
        uuid=uuid4(),
        name=name,
        type=type_name,
        mac=None,
        mtu_request=None,
        ofport=None,
        ofport_request=None,
        options=options,
        untuned=(),
    )


def tunnel(words: str, name: str = "t0") -> Tunnel:
    return tunnels.read(interface(words, name))


def error(words: str) -> str:
    with pytest.raises(HeliographError) as caught:
        tunnel(words)
    return str(caught.value)


def test_a_gre_port_as_any_guide_makes_it() -> None:
    """Rules 104-111: the defaults."""
    row = interface("gre key=0x1000")
    assert tunnels.read(row) == Tunnel(
        uuid=row.uuid,
        name="t0",
        kind=Kind.GRE,
        family=4,
        remote=ip_address(FAR),
        local=None,
        in_key=4096,
        out_key=4096,
        csum=False,
        seq=False,
        ttl=64,
        tos=0,
        df=True,
        dst_port=0,
        version=0,
        index=0,
        direction=None,
        hwid=0,
        cut=True,
    )
    assert tunnels.remarks(row) == []


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        # Rules 104, 106, 107: no option, no key field; 0 is a key.
        ("gre", {"in_key": 0, "out_key": None}),
        ("gre key=0", {"in_key": 0, "out_key": 0}),
        ("gre in_key=3", {"in_key": 3, "out_key": None}),
        ("gre out_key=3", {"in_key": 0, "out_key": 3}),
        ("gre key=5 in_key=6 out_key=7", {"in_key": 6, "out_key": 7}),
        ("gre key=5 out_key=7", {"in_key": 5, "out_key": 7}),
        # Rule 108.
        ("gre key=flow", {"in_key": None, "out_key": 0}),
        ("gre key=5 in_key=flow", {"in_key": None, "out_key": 5}),
        # As strtoull reads them, with base 0.
        ("gre key=010", {"in_key": 8, "out_key": 8}),
        ("gre key=0XfF", {"in_key": 255}),
        ("gre key=4294967295", {"in_key": 2**32 - 1}),
        ("vxlan key=0xffffff", {"out_key": 2**24 - 1}),
        ("erspan erspan_ver=1 key=0x3ff", {"out_key": 1023}),
        # Rules 114 and 123: these always have a key field.
        ("vxlan", {"in_key": 0, "out_key": 0, "dst_port": 4789, "kind": Kind.VXLAN}),
        ("erspan erspan_ver=1", {"in_key": 0, "out_key": 0, "kind": Kind.ERSPAN}),
    ],
)
def test_keys(words: str, fields: dict[str, object]) -> None:
    """Rules 104, 106-108: of both directions."""
    assert asdict(tunnel(words)).items() >= fields.items()


@pytest.mark.parametrize(
    ("words", "fields"),
    [
        # Rule 109.
        ("gre csum=true seq=true", {"csum": True, "seq": True}),
        (f"gre remote_ip={FAR6}", {"csum": False, "family": 6}),
        ("vxlan", {"csum": False}),
        (f"vxlan remote_ip={FAR6}", {"csum": True}),
        (f"vxlan remote_ip={FAR6} csum=false", {"csum": False}),
        # Open vSwitch compares with lower case only.
        ("gre csum=TRUE seq=yes df_default=FALSE", {"csum": False, "seq": False, "df": True}),
        (f"vxlan remote_ip={FAR6} csum=no", {"csum": True}),
        ("erspan erspan_ver=2 csum=true seq=true", {"csum": False, "seq": False}),
        # Rule 110.
        ("gre ttl=inherit tos=inherit", {"ttl": None, "tos": None}),
        ("gre ttl=1 tos=0x28", {"ttl": 1, "tos": 40}),
        ("gre ttl=0 tos=40", {"ttl": 64, "tos": 40}),
        ("gre ttl=020 tos=050", {"ttl": 20, "tos": 40}),
        # Rule 111.
        ("gre df_default=false", {"df": False}),
        # Rule 119.
        (
            "erspan erspan_ver=1 erspan_idx=10",
            {"version": 1, "index": 0x10, "direction": None, "hwid": 0},
        ),
        ("erspan erspan_ver=1 erspan_idx=0xFFFFF", {"index": 2**20 - 1}),
        (
            "erspan erspan_ver=2 erspan_dir=0 erspan_hwid=3f",
            {"version": 2, "index": 0, "direction": 0, "hwid": 63},
        ),
        ("erspan erspan_ver=2 erspan_dir=1", {"direction": 1}),
        # Rule 108 and D5: what a flow table would say.
        ("erspan erspan_ver=1 erspan_idx=flow key=flow", {"index": 0, "out_key": 0}),
        ("erspan erspan_ver=2 erspan_dir=flow erspan_hwid=flow", {"direction": None, "hwid": 0}),
        ("vxlan dst_port=8472", {"dst_port": 8472}),
        ("gre heliograph_mtu=drop", {"cut": False}),
        ("gre heliograph_mtu=cut", {"cut": True}),
    ],
)
def test_other_options(words: str, fields: dict[str, object]) -> None:
    """Rules 109-111, 119, 123."""
    assert asdict(tunnel(words)).items() >= fields.items()


@pytest.mark.parametrize(
    ("words", "remote", "local", "family"),
    [
        ("gre local_ip=192.0.2.2", FAR, "192.0.2.2", 4),
        (f"gre remote_ip={FAR6} local_ip=2001:db8::2", FAR6, "2001:db8::2", 6),
        (f"erspan erspan_ver=1 remote_ip={FAR6}", FAR6, None, 6),  # rule 121
        (f"ip6erspan erspan_ver=1 remote_ip={FAR6}", FAR6, None, 6),
        (f"ip6gre remote_ip={FAR6}", FAR6, None, 6),
        ("gre remote_ip=flow", None, None, None),
        ("gre remote_ip=flow local_ip=flow", None, None, None),
        ("gre remote_ip=flow local_ip=192.0.2.2", None, "192.0.2.2", 4),
        ("ip6gre remote_ip=flow", None, None, 6),
    ],
)
def test_ends(words: str, remote: str | None, local: str | None, family: int | None) -> None:
    """Rules 105 and 121."""
    read = tunnel(words)
    ends = [None if end is None else ip_address(end) for end in (remote, local)]
    assert [read.remote, read.local, read.family] == [*ends, family]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "gre remote_ip=ABSENT",
            "options:remote_ip is missing: set interface t0 options:remote_ip=",
        ),
        ("gre remote_ip=collector.example", "is not an IP address (host names are not looked up)"),
        ("gre remote_ip=", "options:remote_ip='' is not an IP address"),
        ("gre remote_ip=10.1", "is not an IP address"),
        ("gre remote_ip=0x0a000001", "is not an IP address"),
        ("gre remote_ip=[2001:db8::1]", "is not an IP address"),
        ("gre remote_ip=224.0.0.1", "options:remote_ip='224.0.0.1' is a multicast address: set"),
        ("gre remote_ip=ff02::1", "is a multicast address"),
        ("gre remote_ip=255.255.255.255", "is the broadcast address"),
        ("gre remote_ip=0.0.0.0", "is the unspecified address"),
        ("gre remote_ip=::", "is the unspecified address"),
        ("gre remote_ip=127.0.0.1", "is a loopback address"),
        ("gre remote_ip=::1", "is a loopback address"),
        ("gre remote_ip=fe80::1%eth0", "has a zone, which is not supported"),
        ("gre remote_ip=fe80::1", "is valid on one link only"),
        ("gre remote_ip=::ffff:192.0.2.1", "set interface t0 options:remote_ip=192.0.2.1"),
        ("gre local_ip=224.0.0.1", "options:local_ip='224.0.0.1' is a multicast address"),
        ("gre local_ip=here", "options:local_ip='here' is not an IP address"),
        ("gre local_ip=flow", "goes with remote_ip=flow only"),
        ("gre local_ip=2001:db8::2", f"is of another address family than {FAR}"),
        (f"gre remote_ip={FAR6} local_ip=192.0.2.2", "is of another address family"),
        (f"gre local_ip={FAR}", f"options:remote_ip='{FAR}' is local_ip too"),
        ("ip6gre", f"options:remote_ip='{FAR}' is IPv4 and type ip6gre is not"),
        ("ip6erspan erspan_ver=1", "is IPv4 and type ip6erspan is not"),
        ("ip6gre remote_ip=flow local_ip=192.0.2.2", "options:local_ip='192.0.2.2' is IPv4 and"),
    ],
)
def test_bad_ends(words: str, said: str) -> None:
    """Rule 105."""
    assert said in error(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "gre key=4294967296",
            "options:key='4294967296' is not a number from 0 to 4294967295: "
            "set interface t0 options:key=NUMBER or flow",
        ),
        ("gre in_key=0x1ffffffffffffffff", "options:in_key='0x1ffffffffffffffff' is not"),
        ("gre key=1 out_key=-1", "options:out_key='-1' is not a number"),
        ("gre key=12abc", "is not a number"),
        ("gre key=1_0", "is not a number"),
        ("gre key=08", "is not a number"),
        ("gre key=", "options:key='' is not a number"),
        ("gre key=FLOW", "is not a number"),
        ("gre key=" + "9" * 5000, "is not a number"),
        ("vxlan key=0x1000000", "is not a number from 0 to 16777215"),
        ("erspan erspan_ver=1 key=1024", "is not a number from 0 to 1023"),
        (
            "gre ttl=256",
            "is not a number from 0 to 255: set interface t0 options:ttl=NUMBER or inh",
        ),
        ("gre ttl=-1", "is not a number"),
        ("gre ttl=0x20", "is not a number"),
        ("gre tos=256", "options:tos='256' is not a number from 0 to 255"),
        ("gre tos=0x29", "sets ECN bits (the lowest two), which are the inner packet's: set "),
        ("gre tos=2", "options:tos=0x0"),
        (
            "vxlan dst_port=0",
            "is not a number from 1 to 65535: set interface t0 options:dst_port=N",
        ),
        ("vxlan dst_port=65536", "is not a number"),
        ("vxlan dst_port=", "options:dst_port='' is not a number"),
        ("erspan", "options:erspan_ver is missing: set interface t0 options:erspan_ver=1 for"),
        ("erspan erspan_ver=3", "options:erspan_ver='3' is neither 1 nor 2"),
        ("erspan erspan_ver=flow", "is for flow tables, which are not supported yet"),
        ("erspan erspan_ver=1 erspan_idx=100000", "is not a number from 0x0 to 0xfffff (hex"),
        ("erspan erspan_ver=2 erspan_idx=100000", "options:erspan_idx='100000' is not"),
        ("erspan erspan_ver=1 erspan_idx=xyz", "is not a number"),
        ("erspan erspan_ver=2 erspan_hwid=40", "is not a number from 0x0 to 0x3f (hexadecimal)"),
        ("erspan erspan_ver=2 erspan_dir=2", "options:erspan_dir='2' is not a number from 0 to 1"),
        ("erspan erspan_ver=2 erspan_dir=in", "options:erspan_dir='in' is not"),
        ("gre heliograph_mtu=truncate", "is neither cut nor drop: set interface t0 options:helio"),
    ],
)
def test_values_out_of_range(words: str, said: str) -> None:
    """Rules 110, 119, 120, 123: what Open vSwitch refuses, and what it takes for another value."""
    assert said in error(words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("gre psk=secret", "options:psk asks for IPsec, which is not supported: remove interface"),
        ("vxlan remote_cert=x", "options:remote_cert asks for IPsec"),
        (
            "gre packet_type=legacy_l3",
            "is not supported yet: set interface t0 options:packet_type=",
        ),
        ("vxlan exts=gbp", "options:exts='gbp' is not supported yet"),
    ],
)
def test_what_would_change_the_wire_is_refused(words: str, said: str) -> None:
    """Nothing leaves in clear text that should not, nor in a form that nobody expects."""
    assert said in error(words)
    assert "secret" not in error(words)


@pytest.mark.parametrize(
    ("words", "keys"),
    [
        ("gre key=1 ttl=5 csum=true seq=false packet_type=legacy_l2 heliograph_mtu=drop", []),
        ("gre foo=bar dst_port=7", ["dst_port", "foo"]),
        ("gre egress_pkt_mark=3 exts=gbp", ["egress_pkt_mark", "exts"]),
        ("vxlan seq=true csum=true dst_port=5 exts=", ["seq"]),
        # Rule 120.
        ("erspan erspan_ver=1 csum=true seq=maybe", ["csum", "seq"]),
        ("erspan erspan_ver=1 erspan_idx=5", []),
        # What is of the other version waits there for a change of erspan_ver.
        ("erspan erspan_ver=1 erspan_dir=1 erspan_hwid=3", []),
        ("erspan erspan_ver=2 erspan_idx=5", []),
        ("gre egress_pkt_mark=0", []),
    ],
)
def test_options_without_effect(words: str, keys: list[str]) -> None:
    """Rule 120, and for any other type: they are named, and the tunnel works."""
    row = interface(words)
    assert tunnels.read(row)
    remarks = tunnels.remarks(row)
    assert [remark.split()[0] for remark in remarks] == [f"options:{key}" for key in keys]
    assert all(" has no effect on a tunnel of type " in remark for remark in remarks)
    for key, remark in zip(keys, remarks, strict=True):
        assert remark.endswith(f": remove interface t0 options {key}")


def test_truths_that_are_none() -> None:
    remarks = tunnels.remarks(interface("gre csum=TRUE seq=false df_default=0"))
    assert [remark.split()[0] for remark in remarks] == [
        "options:csum='TRUE'",
        "options:df_default='0'",
    ]
    assert "neither true nor false, so the default holds" in remarks[0]


def test_rule_105_remote_ip_flow_sends_nothing() -> None:
    (remark,) = tunnels.remarks(interface("gre remote_ip=flow"))
    assert "receives from any address and sends nothing" in remark


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gre key=5", "gre in_key=5 out_key=6"),
        ("gre", "gre key=0"),  # both take a frame without a key (rule 106)
        (f"gre remote_ip={FAR6}", f"ip6gre remote_ip={FAR6}"),
        ("erspan erspan_ver=1", "erspan erspan_ver=2"),
        ("vxlan key=1", "vxlan key=1 dst_port=4789"),
    ],
)
def test_rule_112_two_that_receive_the_same(one: str, other: str) -> None:
    first, second = tunnel(one, "t1"), tunnel(other, "t2")
    errors = tunnels.conflicts([first, second])
    assert errors.keys() == {second.uuid}
    assert "interface t1" in errors[second.uuid] and "t2 options:" in errors[second.uuid]
    assert tunnels.conflicts([second, first]).keys() == {first.uuid}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("gre key=5", "gre key=6"),
        ("gre key=5", "gre key=flow"),
        ("gre key=5", "gre key=5 local_ip=192.0.2.9"),
        ("gre key=5", "gre key=5 remote_ip=192.0.2.7"),
        ("gre key=5", "gre key=5 remote_ip=flow"),
        ("gre key=5", "erspan erspan_ver=1 key=5"),
        ("vxlan key=5", "vxlan key=5 dst_port=8472"),
    ],
)
def test_rule_112_two_that_are_told_apart(one: str, other: str) -> None:
    assert tunnels.conflicts([tunnel(one), tunnel(other)]) == {}


KEYS = (
    "remote_ip local_ip key in_key out_key csum seq ttl tos df_default dst_port erspan_ver "
    "erspan_idx erspan_dir erspan_hwid heliograph_mtu packet_type exts psk peer"
).split()
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from(["flow", "inherit", "true", "false", "1", "2", "0x10", FAR, FAR6, "fe80::1%1"]),
    st.integers().map(str),
    st.integers().map(hex),
    st.ip_addresses().map(str),
    st.text(),
)


@given(
    st.sampled_from(sorted(tunnels.TYPES)),
    st.dictionaries(st.one_of(st.sampled_from(KEYS), st.text()), VALUES),
    st.booleans(),
)
def test_any_options_make_a_tunnel_or_one_error(
    type_name: str, options: dict[str, str], has_remote: bool
) -> None:
    """Issue 4, "Bad input": nothing else is raised, and what is read fits the header's fields."""
    row = made(type_name, options | ({"remote_ip": FAR6} if has_remote else {}))
    tunnels.remarks(row)
    try:
        read = tunnels.read(row)
    except HeliographError as failure:
        assert ": " in str(failure)
        assert "options" in str(failure)
        return
    bits = {Kind.GRE: 32, Kind.ERSPAN: 10, Kind.VXLAN: 24}[read.kind]
    assert 0 <= (read.in_key or 0) < 2**bits
    assert 0 <= (read.out_key or 0) < 2**bits
    assert (read.ttl is None or 0 < read.ttl < 256) and (read.tos is None or read.tos & 3 == 0)
    assert read.version in ((1, 2) if read.kind is Kind.ERSPAN else (0,))
    assert read.index < 2**20 and read.hwid < 2**6 and read.direction in (None, 0, 1)
    assert (0 < read.dst_port < 2**16) == (read.kind is Kind.VXLAN)


def test_what_the_rows_say(rows: Rows) -> None:
    """heliograph_mtu may stand in external_ids, for databases that refuse the option."""

    def is_cut(**columns: dict[str, str]) -> bool:
        rows.set("Interface", row, **columns)
        (read,) = rows.intent.bridges[0].ports[0].interfaces
        return tunnels.read(read).cut

    row = rows.add("Interface", name="gre0", type="gre", options={"remote_ip": FAR})
    rows.bridge("br0", (rows.add("Port", name="gre0", interfaces=(row,)),))
    assert is_cut()
    assert not is_cut(external_ids={"heliograph_mtu": "drop", "iface-id": "x"})
    assert is_cut(options={"remote_ip": FAR, "heliograph_mtu": "cut"})
