# SPDX-License-Identifier: Apache-2.0
"""Lists of fields: what is brought to what, and why a list is refused."""

import pytest
from hypothesis import given, settings
from tests.unit.openflow.strategies import VERSIONS, matches

from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS
from heliograph.openflow.match import Match
from heliograph.openflow.oxm import decode_fields, encode_fields

ETH_IP = "80000a020800"  # eth_type is IPv4
TCP = "8000140106"


@settings(deadline=None)
@given(match=matches())
def test_fields_return_in_every_version(match: Match) -> None:
    for version in VERSIONS:
        assert decode_fields(encode_fields(match, version)) == (match, (0, 0))


def test_no_two_fields_share_a_header() -> None:
    seen: dict[tuple[tuple[int, int, int], int], str] = {}
    for field in FIELDS.values():
        for header in field.headers:
            assert seen.setdefault((header, field.size), field.name) == field.name


CANONICAL = {
    "80000c021005": {"vlan_tci": (0x1005, 0x1FFF)},
    "80000c020000": {"vlan_tci": (0, 0x1FFF)},
    "80000d0410001000": {"vlan_tci": (0x1000, 0x1000)},
    "80000c02100580000e0103": {"vlan_tci": (0x7005, 0xFFFF)},
    "000008027005": {"vlan_tci": (0x7005, 0xFFFF)},
    "80000004fffffffe": {"in_port": (0xFFFE, 0xFFFF)},
    "000000020003": {"in_port": (3, 0xFFFF)},
    f"{ETH_IP}00000a0128": {"eth_type": (0x800, 0xFFFF), "ip_dscp": (10, 0x3F)},
    f"{ETH_IP}800010010a": {"eth_type": (0x800, 0xFFFF), "ip_dscp": (10, 0x3F)},
    "8000580400000000": {},  # packet_type: Ethernet
    "8000580400010800": {"packet_type": (0x1_0800, 0xFFFF_FFFF)},
    "800102080000000500000006": {"reg2": (5, 0xFFFF_FFFF), "reg3": (6, 0xFFFF_FFFF)},
}


@pytest.mark.parametrize("data", CANONICAL)
def test_equal_matches_are_equal_however_they_are_said(data: str) -> None:
    assert decode_fields(bytes.fromhex(data))[0] == Match.of(CANONICAL[data])


def test_a_cookie_is_no_field() -> None:
    exact = bytes.fromhex("00013c080000000000000005")
    assert decode_fields(exact) == (Match(), (5, 0xFFFF_FFFF_FFFF_FFFF))
    assert encode_fields(Match(), 1, (5, 0xFFFF_FFFF_FFFF_FFFF)) == exact
    assert decode_fields(encode_fields(Match(), 1, (5, 7))) == (Match(), (5, 7))


WRONG = [
    ("8000", Code.OFPBMC_BAD_LEN),
    ("80000a0208", Code.OFPBMC_BAD_LEN),
    ("80000a0408000000", Code.OFPBMC_BAD_LEN),
    ("8000fe0200", Code.OFPBMC_BAD_FIELD),
    ("ffff0004000000", Code.OFPBMC_BAD_FIELD),
    (f"{ETH_IP}{ETH_IP}", Code.OFPBMC_DUP_FIELD),
    ("80000c02100580000c021005", Code.OFPBMC_DUP_FIELD),
    ("80010208000000050000000600010404" + "00000005", Code.OFPBMC_DUP_FIELD),
    (TCP, Code.OFPBMC_BAD_PREREQ),
    (f"{ETH_IP}80001a020050", Code.OFPBMC_BAD_PREREQ),
    ("80000e0103", Code.OFPBMC_BAD_PREREQ),
    ("80000b040800fff0", Code.OFPBMC_BAD_MASK),
    ("80000c022005", Code.OFPBMC_BAD_VALUE),
    ("80000004ffff0001", Code.OFPBMC_BAD_VALUE),
    (f"{ETH_IP}00000a0129", Code.OFPBMC_BAD_VALUE),
    ("80000a020806" + "80002a020100", Code.OFPBMC_BAD_VALUE),
    ("8000051000000000000000ff000000000000000f", Code.OFPBMC_BAD_WILDCARDS),
]


@pytest.mark.parametrize(("data", "code"), WRONG)
def test_a_list_is_refused_for_the_exact_reason(data: str, code: Code) -> None:
    with pytest.raises(OpenFlowError) as caught:
        decode_fields(bytes.fromhex(data + "0" * (len(data) % 2)))
    assert caught.value.code is code
