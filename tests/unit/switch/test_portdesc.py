# SPDX-License-Identifier: Apache-2.0
"""Ports as OpenFlow describes them."""

from uuid import UUID

import pytest
from tests.unit.switch.conftest import Rows, device

from heliograph.kernel.counters import Counts, PortCounts
from heliograph.kernel.layouts import Reason
from heliograph.openflow.messages import PortConfig, PortFeatures, PortState
from heliograph.switch.feedback import Port
from heliograph.switch.plan import Plan
from heliograph.switch.portdesc import Place, describe, places, statistics

ROW = UUID(int=0x7700_0000_0001)


def place(port: Port) -> Place:
    return Place(ROW, "tap1", 3, port)


def test_working_ports_are_found_by_their_ofports(rows: Rows) -> None:
    ports = tuple(rows.port(name) for name in ("a", "b", "c"))
    rows.bridge("br0", ports)
    a, b, c = (rows.interface_of(port) for port in ports)
    planned = Plan(ofports={a: 9, b: -1, c: 4})
    known = {a: Port(17, None, None), b: Port(18, None, None)}
    assert places(rows.intent.bridges[0], planned, known) == {9: Place(a, "a", 9, known[a])}


def test_a_port_is_what_its_user_sees() -> None:
    ours, his = device(5, carrier=True), device(6, admin_up=False, carrier=False)
    found = describe(place(Port(1, ours, his)), PortConfig.NO_FLOOD)
    assert (found.number, found.name, found.address) == (3, "tap1", 0x0200_0000_0006)
    assert found.config == PortConfig.NO_FLOOD | PortConfig.DOWN
    assert found.state == PortState.LINK_DOWN


@pytest.mark.parametrize(
    ("speed", "duplex", "features"),
    [
        (10**10, "full", PortFeatures.FD_10GB),
        (10**8, "half", PortFeatures.HD_100MB),
        (25 * 10**9, "full", PortFeatures.OTHER),
        (None, None, PortFeatures.NONE),
    ],
)
def test_speeds(speed: int | None, duplex: str | None, features: PortFeatures) -> None:
    found = describe(place(Port(1, device(5), None, speed, duplex)), PortConfig.NONE)
    assert (found.current, found.current_speed) == (features, (speed or 0) // 1000)
    assert (found.config, found.state) == (PortConfig.NONE, PortState.LIVE)


def test_ports_without_a_device_have_an_address_and_a_link() -> None:
    """A patch port's is always there, a tunnel's if it has a way."""
    found = describe(place(Port(1, None, None)), PortConfig.NONE)
    assert (found.address, found.state) == (0x7600_0000_0001, PortState.LIVE)
    astray = describe(place(Port(1, None, None, tunnel=True)), PortConfig.NONE)
    assert astray.state == PortState.LINK_DOWN
    way = device(9)
    found = describe(place(Port(1, None, None, tunnel=True, egress=way)), PortConfig.NONE)
    assert found.state == PortState.LIVE


def test_statistics_are_the_interfaces() -> None:
    drops = {Reason.DROP_NO_FORWARDING: 4}
    counts = Counts({7: PortCounts(1, 60, 2, 120, 0, drops)}, {})
    found = statistics(place(Port(7, None, None)), counts, {}, 5)
    assert (found.port, found.rx_packets, found.rx_bytes) == (3, 1, 60)
    assert (found.tx_packets, found.tx_bytes, found.duration_ns) == (2, 120, 5)
    assert (found.rx_dropped, found.tx_dropped, found.rx_errors) == (4, 0, 0)
    assert found.collisions is None
