# SPDX-License-Identifier: Apache-2.0
"""Tunnels go on whatever happens to our processes, a new start adopts them, and when they are gone
nothing of them is left."""

import os
import signal

import pytest
from tests.system.remote_span import RemoteSpan, Traffic, outers
from tests.system.underlay import FAR
from tools.lab.lab import Lab, mounts_below
from tools.lab.namespaces import Namespace
from tools.lab.processes import eventually

UPGRADED = 100  # frames a second over an upgrade
UNCOUNTED = 3  # seconds, at most, from the copying of counters to the swap of programs
ERSPAN = "options:erspan_ver=2 options:key=7"


@pytest.fixture
def span(lab: Lab) -> RemoteSpan:
    made = RemoteSpan(lab)
    made.under.ready()
    return made


def replaced(span: RemoteSpan, word: str) -> None:
    """Kill a child of `helio run`, and wait for its successor to work."""
    old = span.switch.child(word)
    os.kill(old, signal.SIGKILL)

    def there() -> bool:
        try:
            return span.switch.child(word) != old
        except (LookupError, OSError):
            return False

    assert eventually(there)
    assert eventually(lambda: span.ovs.try_vsctl("show").returncode == 0)
    span.ovs.vsctl(f"set bridge br0 external_ids:killed={word}")


def test_no_copy_is_lost_over_stops_kills_and_starts(span: RemoteSpan) -> None:
    switch = span.switch
    span.mirror("erspan", ERSPAN)
    with span.under.capture() as seen, Traffic(span) as traffic:
        assert switch.stop() == 0
        assert switch.host.pids() == []
        traffic.sends(200)
        switch.start()
        traffic.sends()
        replaced(span, "switch")
        traffic.sends()
        replaced(span, "db")
        traffic.sends()
        os.kill(switch.process.pid, signal.SIGKILL)
        assert eventually(lambda: switch.host.pids() == [])
        traffic.sends(200)
        switch.start()
        traffic.sends()
        traffic.settle()
        assert traffic.drops == {}
        assert traffic.copies == [list(range(traffic.flow.sent))]
        assert [outer.seq for outer in outers(seen)] == list(range(traffic.flow.sent))
    assert span.said() == ("", "")
    assert "Traceback" not in switch.process.log_text()


def test_copies_go_on_over_an_upgrade(span: RemoteSpan) -> None:
    """Another layout of the maps; numbers go on where they were."""
    switch = span.switch
    span.mirror("erspan", ERSPAN)
    with span.under.capture() as seen, Traffic(span, rate=UPGRADED) as traffic:
        traffic.sends(50)
        switch.stop()
        traffic.sends(30)
        (folder,) = (switch.rundir / "bpf").glob("layout-*")
        folder.rename(folder.with_name("layout-0123456789abcdef"))
        switch.start()
        assert not folder.with_name("layout-0123456789abcdef").exists()
        traffic.sends(50)
        traffic.flow.stop()
        assert traffic.flow.arrived(traffic.arrived) == list(range(traffic.flow.sent))
        found = outers(seen)
    # A frame that meets the programs of both versions has its copy refused, and counted.
    assert traffic.flow.sent - 2 <= len(found) <= traffic.flow.sent
    assert [one.seq for one in found] == list(range(len(found)))
    # What is counted between the copying of the counters and the swap of the programs is lost.
    least = traffic.flow.sent - UNCOUNTED * UPGRADED
    assert least < span.site.live("m0")["tx_packets"] <= traffic.flow.sent


def pins(span: RemoteSpan) -> set[str]:
    root = span.switch.rundir / "bpf"
    return {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}


def links(host: Namespace) -> dict[str, str]:
    """Of every device its flags, MTU and what it is up to."""
    lines = [line.split(": ", 2) for line in host.ip("-o link show").splitlines()]
    return {line[1].split("@")[0]: line[2].split(" mode ")[0] for line in lines}


def test_the_last_tunnel_takes_everything_along(span: RemoteSpan) -> None:
    host = span.switch.host
    before = links(host), pins(span)
    span.mirror("erspan", ERSPAN)
    span.ovs.vsctl(f"add-port br0 gre6 -- set interface gre6 type=gre options:remote_ip={FAR.ipv6}")
    both = links(host).keys(), pins(span)
    assert len(both[0] - before[0].keys()) == 2, "the segmenter's ends"
    assert any(pin.endswith("-tunnel") for pin in both[1])
    span.ovs.vsctl("del-port gre6")
    assert (links(host).keys(), pins(span)) == both
    span.clear()
    assert (links(host), pins(span)) == before


@pytest.mark.parametrize("ephemeral", [False, True])
def test_nothing_is_left(lab: Lab, ephemeral: bool) -> None:
    """By `helio teardown` after a kill, or by itself if it was meant to be."""
    span = RemoteSpan(lab, ephemeral=ephemeral)
    switch = span.switch
    span.mirror("vxlan", "options:key=5")
    assert any(pin.endswith("-tunnel") for pin in pins(span))
    if ephemeral:
        assert switch.stop() == 0
    else:
        os.kill(switch.process.pid, signal.SIGKILL)
        assert eventually(lambda: switch.host.pids() == [])
        switch.teardown()
    assert links(switch.host).keys() == {"lo", "under0"}
    assert mounts_below(switch.rundir) == []
