# SPDX-License-Identifier: Apache-2.0
"""The lab itself: what it makes goes away, what it captures is what was sent."""

import subprocess
import sys
from collections.abc import Callable

import pytest
from tools.lab.capture import Capture, Frame, Tcpdump, counted, is_chatter
from tools.lab.lab import Lab, LeftoverError, leftovers, sweep
from tools.lab.namespaces import Namespace, veth
from tools.lab.processes import CommandError, Process, eventually
from tools.lab.tshark import GOOD, decode_file
from tools.lab.watchdog import Watchdog

A_KILLED_RUN = """
import os, signal
from tools.lab.lab import Lab
lab = Lab()
made = lab.namespace("orphan")
lab.start(made, "sleep", "60")
lab.path("bpf").mkdir()
made.run("mount", "-t", "bpf", "bpf", lab.path("bpf"))
print(lab.token, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
SOLICITATION = bytes(12) + b"\x86\xdd" + bytes(6) + b"\x3a" + bytes(33) + b"\x85" + bytes(15)
TAGGED = b"\xff" * 6 + b"\x02\0\0\0\0\x01" + b"\x81\x00\x60\x05" + b"\x12\x34" + bytes(46)


@pytest.fixture
def pair(guest: Callable[[str], Namespace]) -> tuple[Namespace, Namespace]:
    """Two namespaces whose devices eth0 are joined."""
    left, right = guest("left"), guest("right")
    veth((left, "eth0"), (right, "eth0"))
    left.address_up("eth0", "10.6.0.1/24")
    right.address_up("eth0", "10.6.0.2/24")
    return left, right


def test_a_sweep_removes_what_a_killed_run_left_and_nothing_of_a_living_one(lab: Lab) -> None:
    living = lab.namespace("living")
    killed = subprocess.run(
        [sys.executable, "-c", A_KILLED_RUN], capture_output=True, text=True, check=False
    )
    token = killed.stdout.strip()
    kinds = {what.split()[0] for what in leftovers(token)}
    assert kinds >= {"namespace", "mount", "directory"}, killed.stderr
    sweep()
    assert leftovers(token) == []
    assert living.ip("-br link show lo")


def test_a_process_that_outlives_its_parent_is_an_error() -> None:
    lab = Lab()
    host = lab.namespace("host")
    lab.start(host, "sh", "-c", "sleep 60 & trap 'exit 0' TERM; wait")
    assert eventually(lambda: len(host.pids()) == 2)
    with pytest.raises(LeftoverError, match="sleep 60"):
        lab.close(patience=0.1)
    assert leftovers(lab.token) == []


def test_a_failing_body_leaves_nothing() -> None:
    with pytest.raises(ZeroDivisionError), Lab() as lab:
        lab.start(lab.namespace("host"), "sleep", "60")
        _ = 1 / 0
    assert leftovers(lab.token) == []


def test_a_watchdog_bites_when_it_takes_too_long_and_only_then() -> None:
    with Lab() as lab, Watchdog(lab):
        lab.namespace("quick")
    assert leftovers(lab.token) == []
    with pytest.raises(AssertionError, match="removed everything"), Lab() as lab:
        process = lab.start(lab.namespace("slow"), "sleep", "60")
        with Watchdog(lab, 0.1):
            process.wait()
    assert leftovers(lab.token) == []


def test_a_capture_shows_tags_where_they_stand_on_the_wire(
    pair: tuple[Namespace, Namespace],
) -> None:
    left, right = pair
    with Capture(right, "eth0") as capture:
        left.send("eth0", [TAGGED])
        assert capture.collect(1) == [Frame(TAGGED, len(TAGGED))]
        left.send("eth0", [SOLICITATION])
        assert capture.collect() == []


def test_tcpdump_sees_what_was_sent_before_it_was_stopped(
    lab: Lab, pair: tuple[Namespace, Namespace]
) -> None:
    left, right = pair
    capture = Tcpdump(lab, right, "eth0", "icmp or vlan")
    assert left.ping("10.6.0.2", 2) == 2
    left.send("eth0", [TAGGED])
    capture.stop()
    frames = capture.frames()
    assert len(frames) == 3, "two requests and the tagged frame, neither ARP nor what right sent"
    assert frames[-1].data == TAGGED
    assert "echo request" in capture.text()[0]


def test_tshark_reads_what_tcpdump_wrote(lab: Lab, pair: tuple[Namespace, Namespace]) -> None:
    left, right = pair
    capture = Tcpdump(lab, right, "eth0", "icmp")
    assert left.ping("10.6.0.2", 2) == 2
    capture.stop()
    requests = [one for one in decode_file(capture.file) if "icmp" in one.protocols]
    assert [one["ip.src"] for one in requests] == [["10.6.0.1"]] * 2
    assert [one.numbers("icmp.seq") for one in requests] == [[1], [2]]
    assert {field: set(one.checksums[field]) for one in requests for field in ("ip", "icmp")} == {
        "ip": {GOOD},
        "icmp": {GOOD},
    }


def test_a_process_that_does_not_get_ready_shows_its_log(lab: Lab) -> None:
    words = ["sh", "-c", "echo no libbpf >&2; exit 4"]
    process = Process(words, log=lab.path("log"))
    with pytest.raises(CommandError, match="no libbpf"):
        process.wait_for_line("ready")
    assert process.stop() == 4


def test_counters_are_held_against_everything_but_chatter() -> None:
    asked = Frame(bytes(60), 60)
    chatter = Frame(SOLICITATION, len(SOLICITATION))
    assert is_chatter(chatter)
    assert not is_chatter(asked)
    frames = [chatter, asked, chatter, asked, chatter]
    assert counted(frames, 3, 120 + chatter.length)
    assert counted(frames, 4, 120 + 2 * chatter.length)
    assert not counted(frames, 2, 120)
    assert not counted(frames, 3, 180)
    assert not counted(frames, 2, 60 + chatter.length)
