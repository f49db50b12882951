# SPDX-License-Identifier: Apache-2.0
"""A storm of frames from one guest, sent by a process of its own on the second CPU.

All go to the guest's own MAC address: the switch learns their sources and then drops them, so
what other guests lose is lost by what the storm does to the switch, not to them.
"""

import json
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tools.lab.lab import Lab
from tools.lab.processes import Process, eventually

from bench.rigs import Guest
from bench.sending import Frames, on_cpu

AHEAD = 16_384  # frames that get their sources at once
SOURCE = range(7, 12)  # offsets of the bytes that are random; the first of the MAC stays 02
CPU = 1


@dataclass(frozen=True)
class Storm:
    """One that has begun; it ends by itself after so many frames or seconds."""

    process: Process
    out: Path

    def wait(self) -> float:
        """Its end; returns frames per second."""
        self.process.wait(60)
        sent, seconds = json.loads(self.out.read_text().split("\n")[1])
        return float(sent / seconds)


def begin(lab: Lab, guest: Guest, frames: int, *, random_sources: bool, seconds: float) -> Storm:
    """Begin a storm; with sources that are not random they are all the guest's own."""
    out = lab.path(f"storm{len(lab.processes)}")
    words = (guest.device, guest.mac().hex(), str(frames), str(int(random_sources)), str(seconds))
    process = lab.start(guest.namespace, sys.executable, "-m", "bench.storm", *words, out=out)
    if not eventually(lambda: bool(out.read_text()), interval=0.005):
        raise RuntimeError(f"the storm did not begin: {process.log_text()}")
    return Storm(process, out)


def main(device: str, mac: bytes, frames: int, random_sources: bool, seconds: float) -> None:
    """Send in this network namespace; prints when it begins, and at the end (frames, seconds)."""
    storm = Frames([(mac + mac + b"\x88\xb6").ljust(60, b"\0")] * AHEAD)
    with on_cpu(CPU), socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as out:
        out.bind((device, 0))
        print("begins", flush=True)
        sent, start = 0, time.perf_counter()
        while sent < frames and time.perf_counter() < start + seconds:
            if random_sources:
                storm.randomise(SOURCE)
            sent += storm.send_once(out)
        print(json.dumps((sent, time.perf_counter() - start)))


if __name__ == "__main__":
    main(
        sys.argv[1],
        bytes.fromhex(sys.argv[2]),
        int(sys.argv[3]),
        sys.argv[4] == "1",
        float(sys.argv[5]),
    )
