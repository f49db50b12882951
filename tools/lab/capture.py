# SPDX-License-Identifier: Apache-2.0
"""Frames as a device shows them: through our own socket, and through the real tcpdump."""

import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from signal import SIGINT
from typing import Self

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import PATIENCE

ETH_P_ALL = 0x0003
SOL_PACKET = 263
PACKET_ADD_MEMBERSHIP, PACKET_MR_PROMISC = 1, 1
PACKET_STATISTICS = 6
PACKET_AUXDATA = 8
PACKET_OUTGOING = 4
SO_RCVBUFFORCE = 33
TP_STATUS_CSUMNOTREADY, TP_STATUS_VLAN_VALID, TP_STATUS_VLAN_TPID_VALID = 0x8, 0x10, 0x40
AUXDATA = struct.Struct("=IIIHHHH")  # status, len, snaplen, mac, net, vlan_tci, vlan_tpid
QUIET = 0.2  # seconds without a frame after which nothing more is expected

# A frame for tcpdump to find: no switch forwards that destination (IEEE 802.1D reserved
# group), none learns a group address as source, and the EtherType is for experiments.
SENTINEL = bytes.fromhex("0180c200000e03000000000088b5") + b"the capture ends here"


@dataclass(frozen=True)
class Frame:
    """A captured frame."""

    data: bytes  # with the outer VLAN tag where it stands on the wire
    length: int  # bytes on the wire, more than len(data) if the capture was cut
    pending_checksum: bool = False  # handed over before its transport checksum was filled in


def is_chatter(frame: Frame) -> bool:
    """What a host with IPv6 on says unasked: neighbour and router discovery, MLD."""
    data = frame.data
    at = 18 if data[12:14] == b"\x81\x00" else 14
    if data[at - 2 : at] != b"\x86\xdd" or len(data) < at + 48:
        return False  # something else, or cut too short to tell
    kind, at = data[at + 6], at + 40
    if kind == 0:  # hop-by-hop options, which MLD carries
        kind, at = data[at], at + 8 * (data[at + 1] + 1)
    return kind == 58 and data[at] in {130, 131, 132, 133, 134, 135, 136, 143}


def _everything(_frame: Frame) -> bool:
    return True


def not_chatter(frame: Frame) -> bool:
    return not is_chatter(frame)


def without_chatter(frames: Sequence[Frame]) -> list[Frame]:
    return [frame for frame in frames if not is_chatter(frame)]


def counted(frames: Sequence[Frame], packets: int, octets: int) -> bool:
    """Whether counters stand for some of `frames`, in one piece, with every one but chatter.

    What hosts say unasked just before a mirror began, or after its counters were read, is on
    the wire but not in the counters.
    """
    asked = [number for number, frame in enumerate(frames) if not is_chatter(frame)]
    return bool(asked) and any(
        sum(frame.length for frame in frames[start : start + packets]) == octets
        and start + packets > asked[-1]
        for start in range(asked[0] + 1)
    )


class Capture:
    """Every frame that arrives at a device from the moment this is made, in order."""

    def __init__(self, namespace: Namespace, device: str, *, outgoing: bool = False) -> None:
        """`outgoing` also shows what the namespace itself sends on the device."""
        self._outgoing = outgoing
        self._socket = namespace.packet_socket(device, 0)
        index = namespace.call(lambda: socket.if_nametoindex(device))
        promiscuous = struct.pack("=iHH8s", index, PACKET_MR_PROMISC, 0, b"")
        self._socket.setsockopt(SOL_PACKET, PACKET_ADD_MEMBERSHIP, promiscuous)
        self._socket.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 64 << 20)
        self._socket.bind((device, ETH_P_ALL))

    def collect(
        self,
        count: int = 0,
        *,
        keep: Callable[[Frame], bool] = not_chatter,
        timeout: float = PATIENCE,
        quiet: float = QUIET,
    ) -> list[Frame]:
        """Take what arrived and what `keep` wants of it.

        Waits until there are `count` frames and then nothing came for `quiet` seconds, so that
        a frame too many is seen as well (if that is 0, for nothing more, as where frames never
        end); gives up waiting after `timeout` seconds.
        """
        frames: list[Frame] = []
        deadline = time.monotonic() + timeout
        while (quiet or len(frames) < count) and (left := deadline - time.monotonic()) > 0:
            self._socket.settimeout(quiet if len(frames) >= count else max(quiet, left))
            try:
                frame = self._receive()
            except TimeoutError:
                break
            if frame and keep(frame):
                frames.append(frame)
        _packets, dropped = struct.unpack(
            "=II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        )
        assert not dropped, f"the capture lost {dropped} frames"
        return frames

    def everything(self, *, quiet: float = QUIET) -> list[Frame]:
        """Take what arrived, IPv6 chatter included."""
        return self.collect(keep=_everything, quiet=quiet)

    def _receive(self) -> Frame | None:
        data, control, _flags, address = self._socket.recvmsg(1 << 18, 128)
        if address[2] == PACKET_OUTGOING and not self._outgoing:
            return None
        for level, kind, value in control:
            if (level, kind) == (SOL_PACKET, PACKET_AUXDATA):
                status, length, _snaplen, _mac, _net, tci, tpid = AUXDATA.unpack_from(value)
                if status & TP_STATUS_VLAN_VALID:
                    tpid = tpid if status & TP_STATUS_VLAN_TPID_VALID else 0x8100
                    data = data[:12] + struct.pack("!HH", tpid, tci) + data[12:]
                    length += 4
                return Frame(data, length, bool(status & TP_STATUS_CSUMNOTREADY))
        raise AssertionError("a frame without PACKET_AUXDATA")

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Tcpdump:
    """The real tcpdump on a device: what arrives there, from when it listens to its stop."""

    def __init__(
        self, lab: Lab, namespace: Namespace, device: str, filter_expression: str = ""
    ) -> None:
        self.namespace, self.device = namespace, device
        self.file = lab.path(f"{device}-{len(lab.processes)}.pcap")
        # Not -Q in: the sentinel goes out. What the namespace itself says there is left out.
        expression = f"not ether src {namespace.mac(device).hex(':')}"
        if filter_expression:
            # `vlan` shifts where what follows it looks, so the sentinel comes first.
            expression += f" and (ether proto 0x88b5 or ({filter_expression}))"
        self._process = lab.start(
            namespace,
            *("tcpdump", "-i", device, "-n", "-U", "--immediate-mode", "-w", "-", expression),
            out=self.file,
        )
        self._process.wait_for_log("listening on")

    def stop(self, timeout: float = PATIENCE) -> None:
        """End it when it has seen all that came before now.

        A sentinel goes out of the device for that: the switch behind it counts one more frame
        received (and not forwarded).
        """
        self.namespace.send(self.device, [SENTINEL])
        deadline = time.monotonic() + timeout
        while SENTINEL not in self.file.read_bytes():
            assert time.monotonic() < deadline, f"no sentinel: {self._process.log_text()}"
            time.sleep(0.01)
        self._process.stop(SIGINT)
        log = self._process.log_text()
        assert "\n0 packets dropped by kernel" in log, log

    def frames(self) -> list[Frame]:
        """After stop: what was captured, without the sentinel."""
        return [frame for frame in read_pcap(self.file) if not frame.data.startswith(SENTINEL)]

    def text(self, *options: str) -> list[str]:
        """After stop: the lines that `tcpdump -n OPTIONS -r` prints for `frames()`."""
        words = ["tcpdump", "-n", *options, "-r", str(self.file), "not ether proto 0x88b5"]
        printed = self.namespace.run(*words)
        return printed.stdout.splitlines()


def read_pcap(path: Path) -> list[Frame]:
    """The frames of a complete pcap file in this machine's byte order."""
    data = path.read_bytes()
    assert data[:4] == struct.pack("=I", 0xA1B2C3D4), f"{path} is no pcap file of ours"
    frames, at = [], 24
    while at < len(data):
        captured, length = struct.unpack_from("=II", data, at + 8)
        frames.append(Frame(data[at + 16 : at + 16 + captured], length))
        at += 16 + captured
    return frames
