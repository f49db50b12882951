# SPDX-License-Identifier: Apache-2.0
"""The flow that a bridge begins with counts, though no frame meets the tables while it is alone."""

from collections.abc import Iterator

import pytest
from tests.system.flow_hosts import Hosts
from tests.system.site import MAC2, frame
from tools.lab.flow import Flow
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab

NORMAL = "priority=0 actions=NORMAL"
OTHER = "priority=5,in_port=2,actions=drop"
SIZE = len(frame())
CHANGES = 10


@pytest.fixture
def hosts(lab: Lab, switch: Heliograph) -> Iterator[Hosts]:
    made = Hosts(lab, switch)
    yield made
    assert "Traceback" not in made.log(), made.log()


def send(hosts: Hosts, port: int, count: int) -> None:
    hosts.send(port, *[frame()] * count)


def alone(hosts: Hosts) -> tuple[int, int]:
    """Packets and bytes of the flow that a bridge begins with."""
    (counted,) = (counted for flow, counted in hosts.counts().items() if NORMAL in flow)
    return counted


def test_what_went_past_the_tables_is_counted(hosts: Hosts) -> None:
    assert alone(hosts) == (0, 0)
    send(hosts, 1, 20)
    send(hosts, 3, 3)
    assert alone(hosts) == (23, 23 * SIZE)
    assert "packet_count=23 " in hosts.ofctl("dump-aggregate", "br0")
    assert "lookup=23, matched=23" in hosts.ofctl("dump-tables", "br0")
    hosts.ofctl("add-flow", "br0", OTHER)
    assert alone(hosts) == (23, 23 * SIZE), "frames are lost"
    send(hosts, 2, 5)
    send(hosts, 1, 4)
    assert alone(hosts) == (27, 27 * SIZE)
    hosts.ofctl("del-flows", "br0", "in_port=2")
    assert alone(hosts) == (27, 27 * SIZE), "frames that met the other flow count for this one"
    send(hosts, 2, 1)
    assert alone(hosts) == (28, 28 * SIZE)
    hosts.tools.vsctl("del-port br0 p3")
    send(hosts, 1, 2)
    assert alone(hosts) == (30, 30 * SIZE), "frames are gone with their port"
    hosts.ofctl("add-flow", "br0", "priority=0,actions=NORMAL", version="OpenFlow10")
    assert alone(hosts) == (0, 0), "it is another flow"
    send(hosts, 1, 2)
    assert alone(hosts) == (2, 2 * SIZE)


def test_it_goes_on_after_a_restart(hosts: Hosts) -> None:
    send(hosts, 3, 2)
    hosts.ofctl("add-flow", "br0", OTHER)
    send(hosts, 2, 6)
    hosts.ofctl("del-flows", "br0", "in_port=2")
    send(hosts, 1, 5)
    hosts.tools.vsctl("del-port br0 p3")
    hosts.kill_switch()
    assert alone(hosts) == (7, 7 * SIZE)
    hosts.switch.stop()
    send(hosts, 1, 3)
    hosts.switch.start()
    assert alone(hosts) == (10, 10 * SIZE), "what went by meanwhile was not counted"
    hosts.ofctl("add-flow", "br0", OTHER)
    hosts.kill_switch()
    assert alone(hosts) == (10, 10 * SIZE)


def test_a_port_that_moves_takes_nothing_along(hosts: Hosts) -> None:
    send(hosts, 1, 5)
    ports = [
        hosts.tools.vsctl(f"get port {name} _uuid") for name in ("br0", "p2", "p3", "p4", "p1")
    ]
    hosts.tools.vsctl("add-br br1")
    own = hosts.tools.vsctl("get port br1 _uuid")
    hosts.tools.vsctl(
        f"set bridge br0 ports={','.join(ports[:-1])} -- set bridge br1 ports={own},{ports[-1]}"
    )
    assert alone(hosts) == (5, 5 * SIZE)
    assert "n_packets=0," in hosts.ofctl("dump-flows", "br1", version="OpenFlow14")
    send(hosts, 1, 2)
    assert alone(hosts) == (5, 5 * SIZE)
    assert "n_packets=2," in hosts.ofctl("dump-flows", "br1", version="OpenFlow14")


def test_frames_are_counted_once_in_the_midst_of_changes(hosts: Hosts) -> None:
    with Flow((hosts.guest, "g1"), MAC2, rate=200) as frames:
        for _ in range(CHANGES):
            hosts.ofctl("add-flow", "br0", OTHER)
            hosts.ofctl("del-flows", "br0", "in_port=2")
        assert frames.sent > 0
    hosts.send(1)
    # One that comes just when two counters are read one after the other may be counted by both.
    assert abs(alone(hosts)[0] - frames.sent) <= 2 * CHANGES, frames.sent
