# SPDX-License-Identifier: Apache-2.0
"""Messages about routes, addresses and neighbours: bytes to facts and back.

The hexadecimal ones are what Linux 6.18 said.
"""

import struct
from ipaddress import ip_address as ip

import pytest

from heliograph.kernel import route_messages as wire
from heliograph.kernel.netlink import attribute, attributes, u32
from heliograph.kernel.route_messages import AddressEntry, Neighbour, RouteAnswer

DIRECT = """02200000fe0000010002000008000f00fe000000080001000a000002080004000200000008000700
0a000001080019000000000024000c00020000000000000000000000000000000000000000000000000000000000
0000"""
BY_OTHER_FAMILY = """02200000fe0000010002000008000f00fe000000080001000a09000108000400020000000800
07000a000001160012000a00fd00000000000000000000000000000200000c000800080002001405000008001900
0000000024000c000200000000000000000000000000000000000000000000000000000000000000"""
IPV6 = """0a808000fe0300010000000008000f00fe00000014000100fd0900000000000000000000000000011400
02000000000000000000000000000000000014000700fd0000000000000000000000000000010c0008000800
020078050000080006000004000014000500fd000000000000000000000000000002080004000200000024000c00
02000000000000000000000000000000000000000000000000000000000000000500140000000000"""


def of(text: str) -> bytes:
    return bytes.fromhex(text.replace("\n", ""))


def test_direct_route() -> None:
    answer = RouteAnswer(1, 2, None, ip("10.0.0.1"), 0, False)
    assert wire.parse_route(of(DIRECT)) == answer


def test_route_by_a_gateway_of_the_other_family() -> None:
    answer = RouteAnswer(1, 2, ip("fd00::2"), ip("10.0.0.1"), 1300, False)
    assert wire.parse_route(of(BY_OTHER_FAMILY)) == answer


def test_ipv6_route_by_a_gateway() -> None:
    answer = RouteAnswer(1, 2, ip("fd00::2"), ip("fd00::1"), 1400, False)
    assert wire.parse_route(of(IPV6)) == answer


def test_route_that_encapsulates() -> None:
    said = of(DIRECT) + attribute(21, struct.pack("=H", 1))
    assert wire.parse_route(said).encapsulated


@pytest.mark.parametrize(
    ("remote", "local", "tos", "head", "found"),
    [
        ("10.0.0.2", None, 0, "0220000000000000 00000000", {1: "0a000002"}),
        ("10.0.0.2", "10.0.0.1", 0x13, "0220201000000000 00000000", {1: "0a000002", 2: "0a000001"}),
        ("fd00::2", None, 0, "0a80000000000000 00000000", {1: "fd" + "00" * 14 + "02"}),
    ],
)
def test_question_about_a_route(
    remote: str, local: str | None, tos: int, head: str, found: dict[int, str]
) -> None:
    """Of the TOS the DSCP bits alone: the kernel refuses others, or ignores them."""
    body = wire.route_request(ip(remote), ip(local) if local else None, tos)
    assert body[:12] == bytes.fromhex(head)
    assert attributes(body, 12) == {kind: bytes.fromhex(data) for kind, data in found.items()}


def address(*parts: bytes, family: int = 2, prefix: int = 24, flags: int = 0) -> bytes:
    return struct.pack("=4BI", family, prefix, flags, 0, 7) + b"".join(parts)


V4 = attribute(1, ip("10.0.0.1").packed)
V6 = attribute(1, ip("fd00::1").packed)


def test_own_address_of_a_point_to_point_link() -> None:
    said = address(attribute(1, ip("10.7.0.2").packed), attribute(2, ip("10.7.0.1").packed))
    assert wire.parse_address(said) == (AddressEntry(7, ip("10.7.0.1"), 24), True)


@pytest.mark.parametrize(
    ("flags", "ready"),
    [
        (0x80, True),
        (0x80 | 0x40, False),  # tentative
        (0x80 | 0x40 | 0x04, True),  # tentative, and optimistic
        (0x80 | 0x40 | 0x08, False),  # another host has it
        (0x08 | 0x04, False),
        (0x20, True),  # deprecated: in use as long as it is there
    ],
)
def test_address_in_use(flags: int, ready: bool) -> None:
    for said in (
        address(V6, u32(8, flags | 0x100), family=10, prefix=64),
        address(V6, family=10, prefix=64, flags=flags),
    ):
        assert wire.parse_address(said) == (AddressEntry(7, ip("fd00::1"), 64), ready)


def test_what_is_no_address_of_ours() -> None:
    assert wire.parse_address(address(V4, family=7)) is None
    assert wire.parse_address(address()) is None


def test_neighbour_as_the_kernel_says_it() -> None:
    said = of(
        "020000000200000080000001080001000a0000020a000200020000000099000008000400000000001400030000"
        "000000000000000000000001000000"
    )
    assert wire.parse_neighbour(said) == (Neighbour(2, ip("10.0.0.2")), wire.NUD_PERMANENT)


def test_mac_table_of_a_bridge_is_no_neighbour() -> None:
    said = struct.pack("=B3xiHBB", 7, 2, 2, 0, 0) + attribute(2, bytes(6))
    assert wire.parse_neighbour(said) is None


def test_question_about_a_neighbour() -> None:
    neighbour = Neighbour(7, ip("fd00::2"))
    body = wire.neighbour_request(neighbour, wire.NTF_USE)
    assert body[:12] == struct.pack("=B3xiHBB", 10, 7, 0, 1, 0)
    assert wire.parse_neighbour(body) == (neighbour, 0)


def test_valid_states() -> None:
    named = {"stale": 4, "incomplete": 1, "failed": 0x20, "permanent": 0x80, "probe": 0x10}
    assert {name for name, state in named.items() if state & wire.NUD_VALID} == {
        "stale",
        "permanent",
        "probe",
    }
