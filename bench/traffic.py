# SPDX-License-Identifier: Apache-2.0
"""The two loads: one TCP stream, and 60-byte frames as fast as one sender can."""

import ctypes
import json
import os
import socket
import struct
import time
from dataclasses import dataclass

from tools.lab.lab import Lab
from tools.lab.processes import CommandError

from bench.rigs import Guest, Rig

FRAME = 60  # bytes without the frame check sequence, the smallest Ethernet has
BATCH = 64
SOL_PACKET, PACKET_QDISC_BYPASS = 263, 20
SETTLE = 0.2  # seconds in which the last frames arrive


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_libc = ctypes.CDLL(None, use_errno=True)
_libc.sendmmsg.argtypes = (ctypes.c_int, ctypes.POINTER(_Mmsghdr), ctypes.c_uint, ctypes.c_int)
_libc.sendmmsg.restype = ctypes.c_int


@dataclass(frozen=True)
class SmallFrames:
    """What one burst of 60-byte frames came to."""

    per_second: float  # frames that arrived at the second guest
    lost: float  # share of those sent that did not arrive there
    copies_lost: float  # and share of the copies, at the third guest; 0 without a mirror


def start_server(lab: Lab, rig: Rig) -> None:
    """An iperf3 server in the second guest, for the lifetime of the lab."""
    lab.start(rig.guests[1].namespace, "iperf3", "-s", out=lab.path(f"{rig.host.name}-iperf3"))


def tcp_gbit(rig: Rig, seconds: float) -> float:
    """Gbit/s of payload that one TCP stream brings from the first guest to the second.

    Raises RuntimeError if the rig has a mirror and its copies did not arrive.
    """
    first, second = rig.guests[:2]
    copied = rig.guests[2].received_bytes() if rig.mirrored else 0
    # Both ends on one CPU: where the scheduler puts them matters more than what is between.
    cpu = min(os.sched_getaffinity(0))
    words = ("-c", second.address, "-t", str(seconds), "-O", "0.5", "-J", "-A", f"{cpu},{cpu}")
    for patience in (1.0, 1.0, 0.0):
        result = first.namespace.run("iperf3", *words, timeout=seconds + 20, check=not patience)
        if result.returncode == 0:
            break
        time.sleep(patience)
    end = json.loads(result.stdout)["end"]
    if rig.mirrored:
        share = (rig.guests[2].received_bytes() - copied) / end["sum_received"]["bytes"]
        if share < 0.9:
            raise RuntimeError(f"{rig}: only {share:.0%} of the stream was mirrored")
    return float(end["sum_received"]["bits_per_second"]) / 1e9


def udp_frame(sender: Guest, receiver: Guest) -> bytes:
    """60 bytes of UDP over IPv4, valid in all checksums, for an address that nobody answers."""
    payload = bytes(FRAME - 14 - 20 - 8)
    addresses = socket.inet_aton(sender.address) + socket.inet_aton("10.8.0.99")
    ip = struct.pack("!BBHHHBBH", 0x45, 0, FRAME - 14, 0, 0, 64, 17, 0) + addresses
    total = sum(struct.unpack("!10H", ip))
    total = (total & 0xFFFF) + (total >> 16)
    ip = ip[:10] + struct.pack("!H", 0xFFFF ^ ((total & 0xFFFF) + (total >> 16))) + ip[12:]
    udp = struct.pack("!HHHH", 9000, 9001, 8 + len(payload), 0) + payload  # no UDP checksum
    macs = [guest.namespace.mac(guest.device) for guest in (receiver, sender)]
    return b"".join(macs) + b"\x08\x00" + ip + udp


def _blast(sender: Guest, frame: bytes, seconds: float) -> tuple[int, float]:
    """Send the frame again and again; how often, and for how many seconds."""
    buffer = ctypes.create_string_buffer(frame, len(frame))
    vector = _Iovec(ctypes.cast(buffer, ctypes.c_void_p), len(frame))
    messages = (_Mmsghdr * BATCH)()
    for message in messages:
        message.header.iov, message.header.iovlen = ctypes.pointer(vector), 1
    with sender.namespace.packet_socket(sender.device, 0) as out:
        out.setsockopt(SOL_PACKET, PACKET_QDISC_BYPASS, 1)
        sent, start = 0, time.perf_counter()
        while (now := time.perf_counter()) < start + seconds:
            done = _libc.sendmmsg(out.fileno(), messages, BATCH, 0)
            sent += max(done, 0)  # a full transmit queue is the device's answer, not an error
    return sent, now - start


def small_frames(rig: Rig, seconds: float) -> SmallFrames:
    """60-byte frames from the first guest to the second, for some seconds."""
    sender, receiver = rig.guests[:2]
    if not sender.namespace.ping(receiver.address, 1):
        raise CommandError(f"{rig}: the second guest does not answer")
    frame = udp_frame(sender, receiver)
    arrived = receiver.received()
    copied = rig.guests[2].received() if rig.mirrored else 0
    sent, lasted = _blast(sender, frame, seconds)
    time.sleep(SETTLE)
    arrived = receiver.received() - arrived
    copied = rig.guests[2].received() - copied if rig.mirrored else sent
    # What the guests say unasked may make it more than was sent.
    return SmallFrames(arrived / lasted, max(1 - arrived / sent, 0.0), max(1 - copied / sent, 0.0))
