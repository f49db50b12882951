# SPDX-License-Identifier: Apache-2.0
"""Drops that somebody can mend are said while they go on."""

from ipaddress import ip_address
from uuid import UUID, uuid4

import pytest
from tests.unit.switch.conftest import Rows

from heliograph.kernel.counters import Counts, PortCounts
from heliograph.kernel.layouts import Reason
from heliograph.switch import wanted
from heliograph.switch.encapsulation import Network
from heliograph.switch.plan import Plan
from heliograph.switch.refusals import Refusals
from heliograph.switch.underlay import Path

FAR = ip_address("192.0.2.1")
PATH = Path(9, FAR, ip_address("192.0.2.2"), 1500, Reason.DELIVERED, None)
NUMBER = 7


def counts(**drops: int) -> Counts:
    dropped = {Reason[f"DROP_{name.upper()}"]: count for name, count in drops.items()}
    return Counts({NUMBER: PortCounts(0, 0, 0, 0, 0, dropped)}, {})


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mtu", "MTU is 1500"),
        ("key", "options:key"),
        ("remote", "options:remote_ip"),
        ("version", "options:erspan_ver"),
    ],
)
def test_what_is_dropped_lately_is_said_on_the_port(rows: Rows, name: str, said: str) -> None:
    """D1: not what was dropped before the first look, and no longer than it goes on."""
    interface = rows.add("Interface", name="gre0", type="gre", options={"remote_ip": str(FAR)})
    port = rows.add("Port", name="gre0", interfaces=(interface,))
    rows.bridge("br0", (port,))
    needed = wanted.devices(rows.intent)
    network = Network(needed.tunnels, {interface: PATH})
    refusals = Refusals()

    def problems() -> dict[UUID, str]:
        made = Plan(tunnels={interface: NUMBER})
        refusals.complain(rows.intent, made, network)
        return made.problems

    plan = Plan(tunnels={interface: NUMBER, uuid4(): 99})
    assert not refusals.take_in(plan, counts(**{name: 5}))
    assert problems() == {}
    assert refusals.take_in(plan, counts(**{name: 6}))
    assert problems().keys() == {port}
    assert said in problems()[port]
    assert not refusals.take_in(plan, counts(**{name: 9})), "nothing else than before"
    assert refusals.take_in(plan, counts(**{name: 9}))
    assert problems() == {}


def test_packets_that_come_back_are_said_when_they_do_not_stop(rows: Rows) -> None:
    """A host whose MAC was forgotten is flooded to once, into the tunnel as well."""
    interface = rows.add("Interface", name="gre0", type="gre", options={"remote_ip": str(FAR)})
    port = rows.add("Port", name="gre0", interfaces=(interface,))
    rows.bridge("br0", (port,))
    network = Network(wanted.devices(rows.intent).tunnels, {interface: PATH})
    plan, refusals = Plan(tunnels={interface: NUMBER}), Refusals()
    assert not any(refusals.take_in(plan, counts(loop=count)) for count in (0, 1, 1, 2))
    assert refusals.take_in(plan, counts(loop=3))
    refusals.complain(rows.intent, plan, network)
    assert "come back to it" in plan.problems[port]
    assert refusals.take_in(plan, counts(loop=3))
