# SPDX-License-Identifier: Apache-2.0
"""Which devices rows need."""

from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.switch import wanted


def test_patch_ports_are_no_devices_and_may_have_long_names(rows: Rows) -> None:
    names = ("patch-provnet-0001-to-br-int", "patch-br-int-to-provnet-0001")
    for name, peer in zip(names, reversed(names), strict=True):
        interface = rows.add("Interface", name=name, type="patch", options={"peer": peer})
        rows.bridge(f"br-{name}", (rows.add("Port", name=name, interfaces=(interface,)),))
    assert wanted.devices(rows.intent) == wanted.DevicePlan({}, {}, {})


def tunnel(rows: Rows, bridge: str, kind: str, /, name: str = "t0", **options: str) -> UUID:
    """An Interface row of that type on a bridge of its own, to 192.0.2.1 if nothing else."""
    columns = {"remote_ip": "192.0.2.1"} | options
    interface = rows.add("Interface", name=name, type=kind, options=columns)
    rows.bridge(bridge, (rows.add("Port", name=name, interfaces=(interface,)),))
    return interface


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("gre", {}),
        ("ip6gre", {"remote_ip": "2001:db8::1"}),
        ("erspan", {"erspan_ver": "1"}),
        ("ip6erspan", {"erspan_ver": "2", "remote_ip": "2001:db8::1"}),
        ("vxlan", {}),
    ],
)
def test_a_tunnel_needs_the_segmenter_and_no_device(
    rows: Rows, kind: str, options: dict[str, str]
) -> None:
    """So its name may be longer than a device's."""
    interface = tunnel(rows, "br0", kind, "a-name-too-long-for-a-device", **options)
    needed = wanted.devices(rows.intent)
    assert needed.tunnels.keys() == {interface} and needed.segmenter
    assert not (needed.internal or needed.existing or needed.errors)


def test_without_tunnels_flows_and_cuts_there_is_no_segmenter(rows: Rows) -> None:
    rows.bridge("br0", (rows.port("tap1"),))
    assert not wanted.devices(rows.intent).segmenter
    assert wanted.devices(rows.intent, flows=True).segmenter


@pytest.mark.parametrize("kind", ["geneve", "gtpu", "lisp", "stt", "GRE"])
def test_other_tunnels_are_refused(rows: Rows, kind: str) -> None:
    interface = tunnel(rows, "br0", kind)
    needed = wanted.devices(rows.intent)
    assert needed.tunnels == {} and not needed.segmenter
    assert f"{kind!r} is not supported yet" in needed.errors[interface]


def test_a_tunnel_whose_options_are_wrong_is_refused_alone(rows: Rows) -> None:
    bad, good = tunnel(rows, "br0", "gre", key="x"), tunnel(rows, "br1", "gre", key="1")
    needed = wanted.devices(rows.intent)
    assert needed.tunnels.keys() == {good} and needed.errors.keys() == {bad}


def test_of_two_tunnels_that_receive_the_same_one_is_refused(rows: Rows) -> None:
    """Also on different bridges; and whichever of them it is, it names the other."""
    rivals = {tunnel(rows, f"br{n}", "gre", f"t{n}", key="1"): f"t{n}" for n in range(2)}
    other = tunnel(rows, "br2", "gre", "t2", key="2")
    needed = wanted.devices(rows.intent)
    assert len(needed.errors) == 1 and other in needed.tunnels
    (refused,) = needed.errors
    (kept,) = rivals.keys() - {refused}
    assert needed.tunnels.keys() == {kept, other}
    assert f"exactly what interface {rivals[kept]} receives" in needed.errors[refused]


def test_a_newcomer_does_not_take_the_place_of_a_tunnel_that_works(rows: Rows) -> None:
    """Whatever their names: the one that has an ofport keeps it."""
    first = tunnel(rows, "br0", "gre", name="a")
    second = tunnel(rows, "br1", "gre", name="b")
    for works, other in (first, second), (second, first):
        rows.set("Interface", works, ofport=3)
        rows.set("Interface", other, ofport=-1)
        assert wanted.devices(rows.intent).errors.keys() == {other}


def test_one_tunnel_of_a_bond_is_none(rows: Rows) -> None:
    options = {"remote_ip": "192.0.2.1"}
    both = [rows.add("Interface", name=f"t{n}", type="gre", options=options) for n in range(2)]
    rows.bridge("br0", (rows.add("Port", name="bond0", interfaces=tuple(sorted(both))),))
    needed = wanted.devices(rows.intent)
    assert needed.tunnels == {} and needed.errors.keys() == set(both)


def test_the_bridges_own_port_is_a_device_whatever_its_type(rows: Rows) -> None:
    interface = tunnel(rows, "br0", "gre", "br0")
    needed = wanted.devices(rows.intent)
    assert needed.internal.keys() == {interface} and needed.tunnels == {}
