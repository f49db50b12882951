# SPDX-License-Identifier: Apache-2.0
"""Tunnel ports: the options of Interface rows, typed, or what is wrong with them. Pure.

Options are read as Open vSwitch reads them (rules 103-123): "in_key" and "out_key" override
"key"; keys and tos are numbers as C writes them (4096, 0x1000, and 010 is 8), ttl, dst_port and
erspan_dir are decimal, erspan_idx and erspan_hwid hexadecimal; "true" and "false" count in lower
case only. Where Open vSwitch takes the digits it finds and goes on with a key of 0 or a ttl cut to
eight bits, or sends to an address that no packet can reach, the option is refused: such a tunnel
would carry something else than was asked for, or nothing, and nobody would know.

A value of "flow" is for a flow table to fill in, and there is none. So out_key=flow and
erspan_idx=flow and erspan_hwid=flow send 0 (rule 108), erspan_dir=flow says for each copy what it
is (D5), in_key=flow receives any key, and remote_ip=flow receives from anywhere and sends nothing.
erspan_ver=flow is refused: without a version there is no header (rule 119).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple
from uuid import UUID

from heliograph.errors import UsageError
from heliograph.switch.intent import MTU_OPTION, Interface

Address = IPv4Address | IPv6Address


class Kind(Enum):
    """What goes between the outer IP header and the inner frame."""

    GRE = "GRE"
    ERSPAN = "ERSPAN"
    VXLAN = "VXLAN"


TYPES = {
    "gre": Kind.GRE,
    "ip6gre": Kind.GRE,
    "erspan": Kind.ERSPAN,
    "ip6erspan": Kind.ERSPAN,
    "vxlan": Kind.VXLAN,
}
IPV6_TYPES = {"ip6gre", "ip6erspan"}
FLOW, INHERIT = "flow", "inherit"

TTL_DEFAULT = 64  # rule 110
VXLAN_PORT = 4789  # rule 123
ECN = 0x03  # the bits of tos that are not the user's

_EVERY_KIND = {"remote_ip", "local_ip", "key", "in_key", "out_key", "ttl", "tos", "df_default"}
_EVERY_KIND |= {"packet_type", MTU_OPTION}
_OWN = {
    Kind.GRE: {"csum", "seq"},
    Kind.ERSPAN: {"erspan_ver", "erspan_idx", "erspan_dir", "erspan_hwid"},
    Kind.VXLAN: {"csum", "dst_port", "exts"},
}
_TRUTHS = {"csum", "seq", "df_default"}
_IPSEC = {"psk", "remote_cert", "remote_name"}

_DIGITS = {  # by base; 0: as C writes numbers
    0: re.compile(r"0[xX][0-9a-fA-F]{1,40}|0[0-7]{0,40}|[1-9][0-9]{0,40}"),
    10: re.compile(r"[0-9]{1,40}"),
    16: re.compile(r"(0[xX])?[0-9a-fA-F]{1,40}"),
}


class _Form(NamedTuple):
    """How an option writes a number, its bounds, and the word that may stand in its place."""

    base: int
    low: int
    high: int
    word: str | None = None


_KEY = {
    Kind.GRE: _Form(0, 0, 2**32 - 1, FLOW),
    Kind.ERSPAN: _Form(0, 0, 2**10 - 1, FLOW),  # session ID; rule 120
    Kind.VXLAN: _Form(0, 0, 2**24 - 1, FLOW),
}
_INDEX, _HWID = _Form(16, 0, 2**20 - 1, FLOW), _Form(16, 0, 2**6 - 1, FLOW)  # rule 119
_DIRECTION = _Form(10, 0, 1, FLOW)
_TTL, _TOS = _Form(10, 0, 255, INHERIT), _Form(0, 0, 255, INHERIT)
_DST_PORT = _Form(10, 1, 65535)


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A tunnel port, by the UUID of its Interface row.

    `family` of the outer packet, 4 or 6; None: either (remote_ip=flow without local_ip).
    `remote` None: receives from any address, sends nothing. `local` None: any address of ours,
    and the one that the route says. `in_key` None: any. `out_key` None: no key field, of GRE
    only. `ttl`, `tos` None: the inner packet's. `dst_port` of VXLAN; `version`, `index`,
    `direction` (None: what each copy is, D5), `hwid` of ERSPAN. `cut`: what is longer than the
    path's MTU is cut to it, else dropped.
    """

    uuid: UUID
    name: str
    kind: Kind
    family: int | None
    remote: Address | None
    local: Address | None
    in_key: int | None
    out_key: int | None
    csum: bool
    seq: bool
    ttl: int | None
    tos: int | None
    df: bool
    dst_port: int
    version: int
    index: int
    direction: int | None
    hwid: int
    cut: bool


def read(interface: Interface) -> Tunnel:
    """The tunnel of an Interface row of one of TYPES.

    Raises UsageError: what is to be said in its `error`.
    """
    kind = TYPES[interface.type]
    _refuse_what_changes_the_wire(interface)
    remote, local, family = _ends(interface)
    csum_default = kind is Kind.VXLAN and family == 6  # rule 109
    version, index, direction, hwid = _erspan(interface)
    return Tunnel(
        uuid=interface.uuid,
        name=interface.name,
        kind=kind,
        family=family,
        remote=remote,
        local=local,
        in_key=_key(interface, "in_key"),
        out_key=_out_key(interface),
        csum=kind is not Kind.ERSPAN and _truth(interface, "csum", csum_default),
        seq=kind is Kind.GRE and _truth(interface, "seq", False),
        ttl=_ttl(interface),
        tos=_tos(interface),
        df=_truth(interface, "df_default", True),
        dst_port=_dst_port(interface),
        version=version,
        index=index,
        direction=direction,
        hwid=hwid,
        cut=_is_cut(interface),
    )


def remarks(interface: Interface) -> list[str]:
    """What an Interface row of one of TYPES asks for in vain; the tunnel works all the same."""
    options = interface.options
    of_no_use = options.keys() - _EVERY_KIND - _OWN[TYPES[interface.type]]
    if options.get("egress_pkt_mark") == "0":  # as Neutron sets it, and as it is
        of_no_use.discard("egress_pkt_mark")
    says = [
        f"options:{key} has no effect on a tunnel of type {interface.type}: "
        f"remove interface {interface.name} options {key}"
        for key in sorted(of_no_use)
    ]
    says += [
        f"options:{key}={options[key]!r} is neither true nor false, so the default holds: "
        f"set interface {interface.name} options:{key}=true or {key}=false"
        for key in sorted((options.keys() & _TRUTHS) - of_no_use)
        if options[key] not in ("true", "false")
    ]
    if options.get("remote_ip") == FLOW:
        says.append(
            "options:remote_ip=flow receives from any address and sends nothing without flow "
            f"tables: to send, set interface {interface.name} options:remote_ip=ADDRESS"
        )
    return says


def conflicts(tunnels: Iterable[Tunnel]) -> dict[UUID, str]:
    """Why tunnels do not work that would receive exactly what an earlier one receives."""
    first: dict[tuple[object, ...], Tunnel] = {}
    errors: dict[UUID, str] = {}
    for tunnel in tunnels:
        receives = (
            *(tunnel.kind, tunnel.family, tunnel.remote, tunnel.local),
            *(tunnel.in_key, tunnel.dst_port),
        )
        earlier = first.setdefault(receives, tunnel)
        if earlier is not tunnel:
            errors[tunnel.uuid] = (
                f"receives exactly what interface {earlier.name} receives: set interface "
                f"{tunnel.name} options:remote_ip, local_ip or in_key to another value"
            )
    return errors


def _wrong(interface: Interface, key: str, why: str, values: str) -> UsageError:
    """That an option's value is wrong, and which would do."""
    value = interface.options.get(key)
    named = f"options:{key}" if value is None else f"options:{key}={value!r}"
    return UsageError(f"{named} {why}: set interface {interface.name} options:{key}={values}")


def _refuse_what_changes_the_wire(interface: Interface) -> None:
    """Options that are not supported and that cannot be passed over: without them, frames would
    leave in clear text, or in a form that the far end does not expect."""
    for key in sorted(interface.options.keys() & _IPSEC):
        raise UsageError(
            f"options:{key} asks for IPsec, which is not supported: "
            f"remove interface {interface.name} options {key} to send in clear text"
        )
    if interface.options.get("packet_type", "legacy_l2") != "legacy_l2":
        raise _wrong(interface, "packet_type", "is not supported yet", "legacy_l2")
    if interface.options.get("exts") and TYPES[interface.type] is Kind.VXLAN:
        raise UsageError(
            f"options:exts={interface.options['exts']!r} is not supported yet: "
            f"remove interface {interface.name} options exts"
        )


def _ends(interface: Interface) -> tuple[Address | None, Address | None, int | None]:
    """The far end, ours, and the family of both (rules 105 and 121)."""
    if "remote_ip" not in interface.options:
        raise _wrong(interface, "remote_ip", "is missing", "ADDRESS")
    remote, local = _address(interface, "remote_ip"), _address(interface, "local_ip")
    if remote is not None and interface.options.get("local_ip") == FLOW:
        raise _wrong(interface, "local_ip", "goes with remote_ip=flow only", "ADDRESS")
    versions = {address.version for address in (remote, local) if address is not None}
    if len(versions) > 1:
        why = f"is of another address family than {remote}"
        raise _wrong(interface, "local_ip", why, "ADDRESS")
    if remote is not None and remote == local:
        raise _wrong(interface, "remote_ip", "is local_ip too", "ADDRESS of the far end")
    if interface.type in IPV6_TYPES:
        if 4 in versions:
            key = "local_ip" if remote is None else "remote_ip"
            why = f"is IPv4 and type {interface.type} is not"
            raise _wrong(interface, key, why, "IPV6-ADDRESS")
        return remote, local, 6
    return remote, local, versions.pop() if versions else None


def _address(interface: Interface, key: str) -> Address | None:
    """The unicast address that an option says; None if it says none, or "flow"."""
    text = interface.options.get(key, FLOW)
    if text == FLOW:
        return None
    if "%" in text:
        raise _wrong(interface, key, "has a zone, which is not supported", "ADDRESS without one")
    try:
        address = ip_address(text)
    except ValueError:
        why = "is not an IP address (host names are not looked up)"
        raise _wrong(interface, key, why, "ADDRESS") from None
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped:
            raise _wrong(interface, key, "is IPv4 written as IPv6", str(address.ipv4_mapped))
        if address.is_link_local:  # of which link, no route can tell
            raise _wrong(interface, key, "is valid on one link only", "ADDRESS of wider scope")
    unfit = {
        "a multicast address": address.is_multicast,
        "the unspecified address": address.is_unspecified,
        "a loopback address": address.is_loopback,
        "the broadcast address": str(address) == "255.255.255.255",
    }
    for what, is_so in unfit.items():
        if is_so:
            raise _wrong(interface, key, f"is {what}", "UNICAST-ADDRESS")
    return address


def _number(interface: Interface, key: str, form: _Form, default: int | None = 0) -> int | None:
    """The number that an option says, None if it says the form's word."""
    text = interface.options.get(key)
    if text is None:
        return default
    if text == form.word:
        return None
    if _DIGITS[form.base].fullmatch(text):
        octal = form.base == 0 and text.isdecimal() and text.startswith("0")
        value = int(text, 8 if octal else form.base)
        if form.low <= value <= form.high:
            return value
    style, note = ("#x", " (hexadecimal)") if form.base == 16 else ("", "")
    why = f"is not a number from {form.low:{style}} to {form.high:{style}}{note}"
    raise _wrong(interface, key, why, f"NUMBER or {form.word}" if form.word else "NUMBER")


def _key(interface: Interface, own: str) -> int | None:
    """The key of one direction (rule 106); None is "flow"."""
    key = own if own in interface.options else "key"
    return _number(interface, key, _KEY[TYPES[interface.type]])


def _out_key(interface: Interface) -> int | None:
    """Rules 104 and 107: any option, even 0, makes a key field; all but GRE always have one."""
    if TYPES[interface.type] is Kind.GRE and not interface.options.keys() & {"key", "out_key"}:
        return None
    return _key(interface, "out_key") or 0


def _truth(interface: Interface, key: str, default: bool) -> bool:
    return {"true": True, "false": False}.get(interface.options.get(key, ""), default)


def _is_cut(interface: Interface) -> bool:
    value = interface.options.get(MTU_OPTION, "cut")
    if value not in ("cut", "drop"):
        raise _wrong(interface, MTU_OPTION, "is neither cut nor drop", "cut")
    return value == "cut"


def _ttl(interface: Interface) -> int | None:
    """Rule 110; 0 is the default, too."""
    ttl = _number(interface, "ttl", _TTL)
    return TTL_DEFAULT if ttl == 0 else ttl


def _tos(interface: Interface) -> int | None:
    """Rule 110."""
    tos = _number(interface, "tos", _TOS)
    if tos is not None and tos & ECN:
        why = "sets ECN bits (the lowest two), which are the inner packet's"
        raise _wrong(interface, "tos", why, f"{tos & ~ECN:#x}")
    return tos


def _dst_port(interface: Interface) -> int:
    """Rule 123."""
    if TYPES[interface.type] is not Kind.VXLAN:
        return 0
    return _number(interface, "dst_port", _DST_PORT) or VXLAN_PORT


def _erspan(interface: Interface) -> tuple[int, int, int | None, int]:
    """Version, index, direction and hardware ID (rule 119)."""
    if TYPES[interface.type] is not Kind.ERSPAN:
        return 0, 0, None, 0
    version = interface.options.get("erspan_ver")
    if version not in ("1", "2"):
        if version is None:
            why = "is missing"
        elif version == FLOW:
            why = "is for flow tables, which are not supported yet"
        else:
            why = "is neither 1 nor 2"
        raise _wrong(interface, "erspan_ver", why, "1 for type II or 2 for type III")
    return (
        int(version),
        _number(interface, "erspan_idx", _INDEX) or 0,
        _number(interface, "erspan_dir", _DIRECTION, None),
        _number(interface, "erspan_hwid", _HWID) or 0,
    )
