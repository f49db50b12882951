# SPDX-License-Identifier: Apache-2.0
"""A program: send_frames.py DEVICE CPU COUNT FRAME BEGIN sends a frame (hex) COUNT times.

It stays on one CPU, prints "ready", and begins when the file BEGIN is there.
"""

import os
import socket
import sys
import time
from pathlib import Path


def main(device: str, cpu: str, count: str, frame: str, begin: str) -> None:
    """As fast as the device takes them."""
    os.sched_setaffinity(0, {int(cpu)})
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sender:
        sender.bind((device, 0))
        data = bytes.fromhex(frame)
        print("ready", flush=True)
        while not Path(begin).exists():
            time.sleep(0.001)
        for _ in range(int(count)):
            sender.send(data)


main(*sys.argv[1:])
