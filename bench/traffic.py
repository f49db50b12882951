# SPDX-License-Identifier: Apache-2.0
"""The two loads: one TCP stream, and 60-byte frames as fast as one sender can."""

import json
import os
import socket
import struct
import time
from dataclasses import dataclass

from tools.lab.lab import Lab
from tools.lab.processes import CommandError

from bench.rigs import Guest, Rig
from bench.sending import Frames

FRAME = 60  # bytes without the frame check sequence, the smallest Ethernet has
SEGMENT = 1448  # bytes of payload in a frame of TCP: 1,500 less IPv4, TCP and its timestamps
HEADERS = 14 + 1500 - SEGMENT
SETTLE = 0.2  # seconds in which the last frames arrive


@dataclass(frozen=True)
class Stream:
    """What one TCP stream came to."""

    gbit: float  # of payload per second
    lost: float  # share of the frames, in both directions
    copies_lost: float  # share of the copies; 0 without a mirror


@dataclass(frozen=True)
class SmallFrames:
    """What one burst of 60-byte frames came to."""

    per_second: float  # frames that arrived at the second guest
    lost: float  # share of those sent that did not arrive there
    copies_lost: float  # and share of the copies; 0 without a mirror
    per_cpu_second: float  # frames that arrived, by the sender's time on its CPU


def start_server(lab: Lab, rig: Rig) -> None:
    """An iperf3 server in the second guest, for the lifetime of the lab."""
    lab.start(rig.guests[1].namespace, "iperf3", "-s", out=lab.path(f"{rig.host.name}-iperf3"))


def tcp_stream(rig: Rig, seconds: float) -> Stream:
    """One TCP stream from the first guest to the second.

    Raises RuntimeError if the rig has a mirror and most of its copies did not arrive.
    """
    first, second = rig.guests[:2]
    before, heard = first.counters(), second.counters()
    copied = [guest.received() for guest in rig.outputs]
    # Both ends on one CPU: where the scheduler puts them matters more than what is between.
    cpu = min(os.sched_getaffinity(0))
    words = ("-c", second.address, "-t", str(seconds), "-O", "0.5", "-J", "-A", f"{cpu},{cpu}")
    for patience in (1.0, 1.0, 0.0):
        result = first.namespace.run("iperf3", *words, timeout=seconds + 20, check=not patience)
        if result.returncode == 0:
            break
        time.sleep(patience)
    end = json.loads(result.stdout)["end"]
    time.sleep(SETTLE)
    ours, theirs = _since(before, first.counters()), _since(heard, second.counters())
    said = ours["tx_packets"] + theirs["tx_packets"]
    missed = said - ours["rx_packets"] - theirs["rx_packets"]
    sent = ours["tx_packets"]
    if rig.mirroring.in_wire_frames:  # of which all but a super-frame's last are full
        sent = max(sent, (ours["tx_bytes"] - HEADERS * sent) // SEGMENT)
    due = sent + ours["rx_packets"]
    copies = [guest.received() - was for guest, was in zip(rig.outputs, copied, strict=True)]
    lost = max((1 - count / due for count in copies), default=0.0)
    if lost > 0.5:
        raise RuntimeError(f"{rig}: only {1 - lost:.0%} of the stream was mirrored")
    gbit = float(end["sum_received"]["bits_per_second"]) / 1e9
    return Stream(gbit, max(missed / said, 0.0), max(lost, 0.0))


def _since(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - value for name, value in before.items()}


def udp_frame(sender: Guest, receiver: Guest) -> bytes:
    """60 bytes of UDP over IPv4, valid in all checksums, for an address that nobody answers."""
    payload = bytes(FRAME - 14 - 20 - 8)
    addresses = socket.inet_aton(sender.address) + socket.inet_aton("10.8.0.99")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, FRAME - 14, 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + ip[12:]
    udp = struct.pack("!HHHH", 9000, 9001, 8 + len(payload), 0) + payload  # no UDP checksum
    return receiver.mac() + sender.mac() + b"\x08\x00" + ip + udp


def greet(rig: Rig) -> None:
    """Have the first two guests' MACs learned. Raises CommandError if they do not answer."""
    if not rig.guests[0].namespace.ping(rig.guests[1].address, 1):
        raise CommandError(f"{rig}: the second guest does not answer")


def small_frames(rig: Rig, seconds: float, frames: Frames | None = None) -> SmallFrames:
    """60-byte frames from the first guest to the second, for some seconds."""
    sender, receiver = rig.guests[:2]
    greet(rig)
    ready = frames or Frames([udp_frame(sender, receiver)])
    arrived = receiver.received()
    copied = [guest.received() for guest in rig.outputs]
    with sender.namespace.packet_socket(sender.device, 0) as out:
        used = time.thread_time()
        sent, lasted = ready.send(out, seconds)
        used = time.thread_time() - used
    time.sleep(SETTLE)
    arrived = receiver.received() - arrived
    copies = [guest.received() - was for guest, was in zip(rig.outputs, copied, strict=True)]
    # What the guests say unasked may make it more than was sent.
    lost = max(1 - min([sent, *copies]) / sent, 0.0)
    return SmallFrames(arrived / lasted, max(1 - arrived / sent, 0.0), lost, arrived / used)
