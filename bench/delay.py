# SPDX-License-Identifier: Apache-2.0
"""How soon a flow that is already running is mirrored, after ovs-vsctl has returned."""

import select
import socket
import struct
import time

from tools.lab.lab import Lab

from bench.rigs import OvsRig

ETH_P_IP = 0x0800
SO_TIMESTAMPNS = 35


def mirror_delay(lab: Lab, rig: OvsRig, patience: float) -> float:
    """Seconds from the return of ovs-vsctl to the first copy of a ping at 1,000/s.

    0 if the copy came earlier, infinity if none came within `patience` seconds. The mirror is
    removed again.
    """
    first, second, third = rig.guests
    ping = lab.start(
        first.namespace,
        *("ping", "-n", "-q", "-i", "0.001", second.address),
        out=lab.path("ping-output"),
    )
    time.sleep(1.0)  # long enough for a flow cache to have it
    with third.namespace.packet_socket(third.device, 0) as copies:
        copies.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        copies.bind((third.device, ETH_P_IP))
        rig.mirror()
        returned = time.time()
        if select.select([copies], [], [], patience)[0]:
            _data, control, _flags, _address = copies.recvmsg(2048, 64)
            seconds, nanoseconds = struct.unpack("=qq", control[0][2])
            arrived: float = seconds + nanoseconds / 1e9
            delay = max(arrived - returned, 0.0)
        else:
            delay = float("inf")
    if not ping.running:
        raise RuntimeError(f"{rig}: the flow ended before the mirror could be seen")
    ping.stop()
    rig.unmirror()
    return delay
