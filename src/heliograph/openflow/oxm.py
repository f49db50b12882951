# SPDX-License-Identifier: Apache-2.0
"""Matches as lists of fields, NXM and OXM, which are one format with other numbers.

A header with its length is one key of a table, so a field costs one look-up; only what is not in
the table is taken apart, to find which error it is.
"""

from collections.abc import Iterator, Mapping
from functools import cache

from heliograph.openflow.buffer import Reader, padded
from heliograph.openflow.errors import Code, OpenFlowError
from heliograph.openflow.fields import FIELDS, Field, Header, prerequisites_met
from heliograph.openflow.match import Masked, Match
from heliograph.openflow.ports import from_wide, to_wide

EXPERIMENTER = 0xFFFF
VLAN_CFI = 0x1000
# NXM_NX_COOKIE, exact and masked, in matches of flow mods and of requests for flows. It shares its
# number with a field of another length.
_COOKIES = b"\0\1\x3c\x08", b"\0\1\x3d\x10"


def header_bytes(header: Header, size: int, masked: bool) -> bytes:
    kind, number, experimenter = header
    extra = experimenter.to_bytes(4, "big") if kind == EXPERIMENTER else b""
    length = size * (2 if masked else 1) + len(extra)
    return kind.to_bytes(2, "big") + bytes([number << 1 | masked, length]) + extra


BY_HEADER: Mapping[Header, Field] = {h: f for f in FIELDS.values() for h in f.headers}
_EXACT = {header_bytes(h, f.size, False): f for h, f in BY_HEADER.items()}
_MASKED = {header_bytes(h, f.size, True): f for h, f in BY_HEADER.items()}


def _unknown(data: bytes, pos: int) -> OpenFlowError:
    """Why a header is none of ours."""
    if len(data) - pos < 4:
        return OpenFlowError(Code.OFPBMC_BAD_LEN, "a field's header is cut short")
    kind, number, length = int.from_bytes(data[pos : pos + 2], "big"), data[pos + 2], data[pos + 3]
    experimenter = int.from_bytes(data[pos + 4 : pos + 8], "big") if kind == EXPERIMENTER else 0
    field = BY_HEADER.get((kind, number >> 1, experimenter))
    if field is None:
        return OpenFlowError(Code.OFPBMC_BAD_FIELD, f"no field has {kind:#06x}:{number >> 1}")
    return OpenFlowError(Code.OFPBMC_BAD_LEN, f"{field.name} is not {length} bytes")


def read_field(data: bytes, pos: int) -> tuple[Field, int, int | None, int]:
    """Field, value, mask (None: without) and where the next one begins."""
    size = 8 if data[pos : pos + 2] == b"\xff\xff" else 4
    header = data[pos : pos + size]
    start = pos + size
    field = _EXACT.get(header)
    if field is not None:
        end = start + field.size
        mask = None
    else:
        field = _MASKED.get(header)
        if field is None:
            raise _unknown(data, pos)
        end = start + 2 * field.size
        mask = int.from_bytes(data[start + field.size : end], "big")
    if end > len(data):
        raise OpenFlowError(Code.OFPBMC_BAD_LEN, f"{field.name} is cut short")
    return field, int.from_bytes(data[start : start + field.size], "big"), mask, end


def _add(fields: dict[str, Masked], name: str, value: int, mask: int) -> None:
    if not mask:
        return
    if name in fields:
        raise OpenFlowError(Code.OFPBMC_DUP_FIELD, f"{name} is there twice")
    fields[name] = value, mask


def _add_vlan(fields: dict[str, Masked], value: int, mask: int, own: int) -> None:
    old_value, old_mask = fields.get("vlan_tci", (0, 0))
    if old_mask & own:
        raise OpenFlowError(Code.OFPBMC_DUP_FIELD, "the VLAN is there twice")
    if mask:
        fields["vlan_tci"] = old_value | value, old_mask | mask


def _add_canonical(fields: dict[str, Masked], field: Field, value: int, mask: int) -> None:
    """Bring fields that others are made of to those (match.py)."""
    name = field.name
    if name == "in_port_oxm":
        _add(fields, "in_port", from_wide(value, Code.OFPBMC_BAD_VALUE), mask and 0xFFFF)
    elif name == "vlan_vid":
        _add_vlan(fields, value, mask, 0x0FFF)
    elif name == "vlan_pcp":
        _add_vlan(fields, value << 13 | VLAN_CFI, mask << 13 | VLAN_CFI if mask else 0, 0xE000)
    elif name == "nw_tos":
        _add(fields, "ip_dscp", value >> 2, mask >> 2)
    elif name == "packet_type":
        _add(fields, name, value, mask if value else 0)  # 0 is Ethernet
    else:  # xreg, xxreg
        count = field.bits // 32
        first = int(name.lstrip("xreg")) * count
        for n in range(count):
            shift = 32 * (count - 1 - n)
            half_value, half_mask = value >> shift & 0xFFFF_FFFF, mask >> shift & 0xFFFF_FFFF
            _add(fields, f"reg{first + n}", half_value, half_mask)


_COMPOSED = frozenset(
    name
    for name in FIELDS
    if name in {"in_port_oxm", "vlan_vid", "vlan_pcp", "nw_tos", "packet_type"}
    or name.startswith("x")
)


def decode_fields(data: bytes) -> tuple[Match, Masked]:
    """A match, and the cookie that Nicira's may ask for. `data` ends where the fields do."""
    fields: dict[str, Masked] = {}
    cookie = (0, 0)
    pos, end = 0, len(data)
    while pos < end:
        if data[pos : pos + 4] in _COOKIES:
            cookie, pos = _cookie(data, pos)
            continue
        field, value, mask, pos = read_field(data, pos)
        ones = field.value_bits
        # A mask may be wider than the field: the bits between are always zero.
        mask = ones if mask is None else mask & ones
        if mask not in {ones, 0} and not field.maskable:
            raise OpenFlowError(Code.OFPBMC_BAD_MASK, f"{field.name} has no masks")
        if value & field.impossible:
            raise OpenFlowError(Code.OFPBMC_BAD_VALUE, f"{field.name} is not {value:#x}")
        if value & ~mask:
            raise OpenFlowError(
                Code.OFPBMC_BAD_WILDCARDS, f"{field.name} {value:#x} has bits outside its mask"
            )
        if field.prerequisite and not prerequisites_met(field, fields):
            raise OpenFlowError(
                Code.OFPBMC_BAD_PREREQ, f"{field.name} without {field.prerequisite} before it"
            )
        if field.name in _COMPOSED:
            _add_canonical(fields, field, value, mask)
        else:
            _add(fields, field.name, value, mask)
    return Match(tuple([(n, v, m) for n, (v, m) in sorted(fields.items())])), cookie


def _cookie(data: bytes, pos: int) -> tuple[Masked, int]:
    masked = data[pos + 2] & 1
    size = 16 if masked else 8
    end = pos + 4 + size
    if end > len(data):
        raise OpenFlowError(Code.OFPBMC_BAD_LEN, "the cookie is cut short")
    value = int.from_bytes(data[pos + 4 : pos + 12], "big")
    mask = int.from_bytes(data[pos + 12 : end], "big") if masked else 0xFFFF_FFFF_FFFF_FFFF
    if value & ~mask:
        raise OpenFlowError(Code.OFPBMC_BAD_WILDCARDS, "the cookie has bits outside its mask")
    return (value, mask), end


@cache
def _headers(name: str, version: int) -> tuple[bytes, bytes, int, int]:
    """Exact and masked header, size, and the mask that means "exact"."""
    field = FIELDS[name]
    header = field.header(version)
    return (
        header_bytes(header, field.size, False),
        header_bytes(header, field.size, True),
        field.size,
        field.value_bits,
    )


_ORDER = {name: n for n, name in enumerate(FIELDS)}  # prerequisites first


def encode_field(name: str, value: int, mask: int, version: int) -> bytes:
    exact, masked, size, ones = _headers(name, version)
    if mask == ones:
        return exact + value.to_bytes(size, "big")
    return masked + value.to_bytes(size, "big") + mask.to_bytes(size, "big")


def _on_wire(match: Match, version: int) -> Iterator[tuple[str, int, int]]:
    """In an order in which prerequisites are met, by the names that this version has."""
    for name, value, mask in sorted(match.fields, key=lambda f: _ORDER[f[0]]):
        if name == "in_port" and version != 1:
            yield "in_port_oxm", to_wide(value), 0xFFFF_FFFF
        elif name == "ip_dscp" and version == 1:
            yield "nw_tos", value << 2, 0xFF
        elif name == "vlan_tci" and version != 1:
            yield from _vlan(value, mask)
        else:
            yield name, value, mask


def _vlan(value: int, mask: int) -> Iterator[tuple[str, int, int]]:
    """As `vlan_vid` and `vlan_pcp` where they say the same, else as Nicira has it."""
    if not value and mask & 0x1FFF == 0x1FFF:  # no tag, so no priority to tell of
        mask = 0x1FFF
    pcp = mask >> 13
    if pcp not in {0, 7} or (pcp and not value & VLAN_CFI):
        yield "vlan_tci", value, mask
        return
    yield "vlan_vid", value & 0x1FFF, mask & 0x1FFF
    if pcp:
        yield "vlan_pcp", value >> 13, 7


def encode_fields(match: Match, version: int, cookie: Masked = (0, 0)) -> bytes:
    """The list without anything around it."""
    parts = [encode_field(n, v, m, version) for n, v, m in _on_wire(match, version)]
    value, mask = cookie
    if mask:
        exact = mask == 0xFFFF_FFFF_FFFF_FFFF
        parts.append(_COOKIES[not exact])
        parts.append(value.to_bytes(8, "big") + (b"" if exact else mask.to_bytes(8, "big")))
    return b"".join(parts)


def encode_match(match: Match, version: int) -> bytes:
    """An ofp_match of 1.3 and later."""
    fields = encode_fields(match, version)
    return padded(b"\0\1" + (len(fields) + 4).to_bytes(2, "big") + fields)


def read_match(reader: Reader) -> Match:
    """An ofp_match of 1.3 and later, with its padding."""
    head = reader.take(4)
    kind, length = int.from_bytes(head[:2], "big"), int.from_bytes(head[2:], "big")
    if kind != 1:
        raise OpenFlowError(Code.OFPBMC_BAD_TYPE, f"match of type {kind}, not OXM")
    if length < 4 or length - 4 > len(reader):
        raise OpenFlowError(Code.OFPBMC_BAD_LEN, f"match of {length} bytes")
    fields = reader.take(length - 4)
    reader.take(-length % 8)
    return decode_fields(fields)[0]
