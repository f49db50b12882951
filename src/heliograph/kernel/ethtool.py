# SPDX-License-Identifier: Apache-2.0
"""Driver settings through the ethtool ioctl (linux/ethtool.h, linux/sockios.h).

Any socket of the device's namespace serves; the ioctl knows devices by name only.
"""

import array
import errno
import fcntl
import struct
from dataclasses import dataclass
from typing import Final

SIOCGIFNAME: Final = 0x8910
SIOCETHTOOL: Final = 0x8946

ETHTOOL_GDRVINFO: Final = 0x03
ETHTOOL_GLINKSETTINGS: Final = 0x4C
ETH_FLAG_LRO: Final = 1 << 15

_REQUEST: Final = struct.Struct("@16sP16x")  # struct ifreq with a pointer
_VALUE: Final = struct.Struct("=II")  # struct ethtool_value: command, data
# struct ethtool_link_settings as far as needed: command, speed (Mbit/s), duplex, and the
# number of words per link mode mask at offset 15
_LINK_SETTINGS: Final = struct.Struct("=IIB6xb32x")
_DRIVER: Final = struct.Struct("=I32s32s32s")
_DRIVER_SIZE: Final = 196

SPEED_UNKNOWN: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """What a driver says of itself and its wire; None and "" where it says nothing.

    `speed_bps` in bit/s; `duplex` "full" or "half".
    """

    speed_bps: int | None
    duplex: str | None
    driver: str
    driver_version: str
    firmware_version: str


# (get, set) command of each feature that a single word switches
TX: Final = (0x16, 0x17)
TSO: Final = (0x1E, 0x1F)
GSO: Final = (0x23, 0x24)
FLAGS: Final = (0x25, 0x26)


def device_name(fd: int, ifindex: int) -> str:
    """The device's name at this moment. Raises OSError (ENODEV) when it is gone."""
    answer = fcntl.ioctl(fd, SIOCGIFNAME, struct.pack("=16si20x", b"", ifindex))
    return answer[:16].rstrip(b"\0").decode(errors="surrogateescape")


def _call(fd: int, name: str, data: bytes, size: int = 0) -> bytes:
    """One ethtool command; the kernel's answer, of the request's length or `size`."""
    buffer = array.array("B", data.ljust(size, b"\0"))
    encoded = name.encode(errors="surrogateescape")
    fcntl.ioctl(fd, SIOCETHTOOL, _REQUEST.pack(encoded, buffer.buffer_info()[0]))
    return buffer.tobytes()


def get(fd: int, name: str, feature: tuple[int, int]) -> int:
    """The word of one feature; 0 where the driver does not know it. Raises OSError."""
    try:
        return int(_VALUE.unpack(_call(fd, name, _VALUE.pack(feature[0], 0)))[1])
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return 0
        raise


def put(fd: int, name: str, feature: tuple[int, int], value: int) -> None:
    """Set the word of one feature, if it is not so already. Raises OSError."""
    if get(fd, name, feature) != value:
        _call(fd, name, _VALUE.pack(feature[1], value))


def get_lro(fd: int, name: str) -> bool:
    """Whether the device merges received frames (large receive offload)."""
    return bool(get(fd, name, FLAGS) & ETH_FLAG_LRO)


def put_lro(fd: int, name: str, on: bool) -> None:
    """Switch large receive offload, leaving the other flags alone. Raises OSError."""
    flags = get(fd, name, FLAGS)
    put(fd, name, FLAGS, flags | ETH_FLAG_LRO if on else flags & ~ETH_FLAG_LRO)


def _link_settings(fd: int, name: str) -> tuple[int | None, str | None]:
    try:
        # A first call with no room for masks makes the kernel answer how many words it wants.
        asked = _call(fd, name, _LINK_SETTINGS.pack(ETHTOOL_GLINKSETTINGS, 0, 0, 0))
        words = -_LINK_SETTINGS.unpack(asked)[3]
        request = _LINK_SETTINGS.pack(ETHTOOL_GLINKSETTINGS, 0, 0, words)
        answer = _call(fd, name, request, _LINK_SETTINGS.size + 3 * 4 * words)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return None, None
        raise
    _, speed, duplex, _ = _LINK_SETTINGS.unpack_from(answer)
    speed_bps = None if speed in (0, SPEED_UNKNOWN) else speed * 1_000_000
    return speed_bps, {0: "half", 1: "full"}.get(duplex)


def link_info(fd: int, name: str) -> LinkInfo:
    """Speed, duplex and driver of a device. Raises OSError when it is gone."""
    speed_bps, duplex = _link_settings(fd, name)
    try:
        request = struct.pack("=I", ETHTOOL_GDRVINFO)
        _, *words = _DRIVER.unpack_from(_call(fd, name, request, _DRIVER_SIZE))
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        words = [b"", b"", b""]
    texts = (word.split(b"\0")[0].decode(errors="replace") for word in words)
    return LinkInfo(speed_bps, duplex, *texts)
