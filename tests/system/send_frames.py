# SPDX-License-Identifier: Apache-2.0
"""A program: send_frames.py DEVICE CPU COUNT FRAME BEGIN END sends a frame (hex) again and again.

It stays on one CPU, prints "ready", and begins when the file BEGIN is there. It ends after COUNT
frames, but not before the file END is there, and prints how many it sent.
"""

import os
import socket
import sys
import time
from pathlib import Path

STEP = 500


def main(device: str, cpu: str, count: str, frame: str, *files: str) -> None:
    """As fast as the device takes them."""
    os.sched_setaffinity(0, {int(cpu)})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((device, 0))
        data, (begin, end) = bytes.fromhex(frame), map(Path, files)
        print("ready", flush=True)
        while not begin.exists():
            time.sleep(0.001)
        sent = 0
        while sent < int(count) or not end.exists():
            for _ in range(STEP):
                sender.send(data)
            sent += STEP
        print(f"sent {sent}", flush=True)


main(*sys.argv[1:])
