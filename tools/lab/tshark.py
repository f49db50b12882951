# SPDX-License-Identifier: Apache-2.0
"""The real tshark as a judge of frames: every field it finds, and what it thinks of checksums."""

import json
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

from tools.lab.capture import Frame
from tools.lab.processes import run

VERIFY = "ip", "tcp", "udp"  # the checksum of GRE is verified without being asked for
GOOD = "1"  # the value of a field like ip.checksum.status; 0 is bad, 2 unverified, 3 not there
ERROR, WARNING = 0x800000, 0x600000  # of _ws.expert.severity
PCAP = struct.Struct("=IHHiIII")
RECORD = struct.Struct("=IIII")
LINKTYPE_ETHERNET = 1

Value = str | list["Value"] | Mapping[str, "Value"]


class Decoded:
    """A frame as tshark reads it.

    A field has a list of values, outermost layer first: IPv4 in an IPv4 tunnel has two of
    `ip.src`. A value is what tshark prints ("1", "0x00001000", "10.9.0.1"), a flag "1" or "0".
    """

    def __init__(self, layers: Value) -> None:
        self._fields: dict[str, list[str]] = {}
        self._collect("", layers)
        self.protocols = self["frame.protocols"][0].split(":")  # ["eth", "ethertype", "ip", ...]

    def _collect(self, name: str, value: Value) -> None:
        if isinstance(value, str):
            self._fields.setdefault(name, []).append(value)
        elif isinstance(value, list):
            for one in value:
                self._collect(name, one)
        else:
            for inner, one in value.items():
                self._collect(inner, one)

    def __getitem__(self, field: str) -> list[str]:
        """The values of a field; none if no layer has it."""
        return self._fields.get(field, [])

    def numbers(self, field: str) -> list[int]:
        return [int(value, 0) for value in self[field]]

    @property
    def checksums(self) -> dict[str, list[str]]:
        """What it says of each kind of checksum that it knows: {"ip": ["1", "1"], "gre": ...}."""
        suffix = ".checksum.status"
        return {
            name.removesuffix(suffix): values
            for name, values in self._fields.items()
            if name.endswith(suffix)
        }

    @property
    def errors(self) -> list[str]:
        """Its complaints: malformed or cut packets, bad checksums (GRE's is only a
        warning to it), impossible values."""
        said = zip(self["_ws.expert.message"], self.numbers("_ws.expert.severity"), strict=True)
        return [
            message
            for message, severity in said
            if severity >= ERROR or (severity >= WARNING and "hecksum" in message)
        ]


def write_pcap(path: Path, frames: Iterable[Frame]) -> None:
    """Like tcpdump -w, with the frame's number as microsecond."""
    with path.open("wb") as file:
        file.write(PCAP.pack(0xA1B2C3D4, 2, 4, 0, 0, 1 << 18, LINKTYPE_ETHERNET))
        for number, frame in enumerate(frames):
            seconds, micros = divmod(number, 1_000_000)
            file.write(RECORD.pack(seconds, micros, len(frame.data), frame.length) + frame.data)


def decode_file(path: Path, *options: str) -> list[Decoded]:
    """The frames of a capture; `options` are tshark's, as ("-d", "udp.port==8472,vxlan")."""
    words = ["tshark", "-n", "-r", str(path), "-T", "json", "--no-duplicate-keys", *options]
    for protocol in VERIFY:
        words += ["-o", f"{protocol}.check_checksum:TRUE"]
    printed = run(words, timeout=60).stdout
    return [Decoded(packet["_source"]["layers"]) for packet in json.loads(printed)]


def decode(frames: Iterable[Frame], *options: str) -> list[Decoded]:
    """The same for frames that we captured, or made."""
    with TemporaryDirectory() as directory:
        path = Path(directory, "frames.pcap")
        write_pcap(path, frames)
        return decode_file(path, *options)
