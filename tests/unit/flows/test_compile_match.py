# SPDX-License-Identifier: Apache-2.0
"""Matches as masked words; that frames are found by them: tests/unit/kernel/test_flow_store.py."""

import pytest

from heliograph.flows.compile_match import compile_match
from heliograph.kernel.layouts import KeyWord
from heliograph.openflow.errors import OpenFlowError
from heliograph.openflow.match import ANYTHING, Match

_WIDE = (1 << 128) - 1


def words(**fields: tuple[int, int]) -> list[tuple[str, int, int]]:
    shape, values = compile_match(Match.of(fields))
    return [
        (KeyWord(word).name, value, mask)
        for word, value, mask in zip(shape.words, values, shape.masks, strict=True)
    ]


def test_fields_of_one_word_are_merged_and_numbers_stand_as_such() -> None:
    assert words(
        in_port=(3, 0xFFFF), eth_type=(0x800, 0xFFFF), vlan_tci=(0x1005, 0x1FFF), nw_proto=(6, 255)
    ) == [
        ("KEY_PORT", 0x0003_0800_1005, 0xFFFF_FFFF_1FFF),
        ("KEY_ETH_DST", 0x0600, 0xFF00),
    ]
    assert words(ip_src=(0x0A000000, 0xFF000000), ip_dst=(1, 0xFFFFFFFF)) == [
        ("KEY_IPV4", 0x0A000000_00000001, 0xFF000000_FFFFFFFF)
    ]
    assert words(ip_dscp=(46, 0x3F), nw_ecn=(1, 3), nw_ttl=(64, 255)) == [
        ("KEY_ETH_SRC", 46 << 10 | 1 << 8 | 64, 0xFFFF)
    ]
    assert words(tcp_src=(1, 0xFFFF), tcp_dst=(2, 0xFFFE), tcp_flags=(2, 0xFFF)) == [
        ("KEY_L4", 1 << 48 | 2 << 32 | 2 << 16, 0xFFFF_FFFE_0FFF_0000)
    ]


def test_registers_are_two_to_a_word_and_the_even_one_is_the_high_half() -> None:
    shape, values = compile_match(Match.of({"reg0": (1, 0xFFFFFFFF), "reg15": (3, 0xFFFFFFFF)}))
    assert (shape.words, values) == (
        (KeyWord.KEY_REGISTERS, KeyWord.KEY_REGISTERS + 7),
        (1 << 32, 3),
    )
    assert words(reg0=(1, 0xFFFFFFFF), reg1=(2, 0xF)) == [
        ("KEY_REGISTERS", 1 << 32 | 2, 0xFFFFFFFF_0000000F)
    ]


def test_wide_fields_are_two_words_or_one_of_them() -> None:
    assert words(ipv6_src=(1 << 127 | 1, _WIDE)) == [
        ("KEY_IPV6_SRC", 1 << 63, (1 << 64) - 1),
        ("KEY_IPV6_SRC_LOW", 1, (1 << 64) - 1),
    ]
    assert words(ipv6_dst=(7, 0xFF)) == [("KEY_IPV6_DST_LOW", 7, 0xFF)]
    assert compile_match(ANYTHING).values == ()


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({f"reg{2 * n}": (1, 1) for n in range(8)} | {"metadata": (1, 1)}, ""),
        (
            {f"reg{2 * n}": (1, 1) for n in range(8)}
            | {"metadata": (1, 1), "eth_src": (1, 1), "eth_dst": (1, 1)},
            "OFPBMC_BAD_WILDCARDS",
        ),
        ({"arp_op": (256, 0xFFFF)}, "OFPBMC_BAD_VALUE"),
        ({"arp_op": (255, 0xFFFF)}, ""),
        ({"tun_id": (1, 1)}, "OFPBMC_BAD_FIELD"),
    ],
)
def test_what_cannot_be_found_is_refused(fields: dict[str, tuple[int, int]], code: str) -> None:
    try:
        compile_match(Match.of(fields))
    except OpenFlowError as error:
        assert error.code.name == code
    else:
        assert not code
