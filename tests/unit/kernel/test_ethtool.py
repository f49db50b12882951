# SPDX-License-Identifier: Apache-2.0
"""The ethtool ioctl against a driver in memory: no device here has LRO, or a wire of 2.5 Gbit/s."""

import ctypes
import errno
import struct

import pytest

from heliograph.kernel import ethtool

LRO, NTUPLE = 1 << 15, 1 << 27


class Driver:
    """Answers SIOCETHTOOL by the layouts of linux/ethtool.h, in place, as the kernel does."""

    def __init__(self) -> None:
        self.words = {0x25: LRO | NTUPLE, 0x16: 1}
        self.writes: list[tuple[int, int]] = []
        self.speed, self.duplex = 2500, 1
        self.settings = True

    def ioctl(self, fd: int, number: int, request: bytes) -> bytes:
        assert (fd, number, len(request)) == (3, 0x8946, 40)
        name, address = struct.unpack("@16sP16x", request)
        assert name.rstrip(b"\0") == b"eth0"
        (command,) = struct.unpack("=I", ctypes.string_at(address, 4))
        if command in self.words:
            ctypes.memmove(address + 4, struct.pack("=I", self.words[command]), 4)
        elif command - 1 in self.words:
            (value,) = struct.unpack("=I", ctypes.string_at(address + 4, 4))
            self.words[command - 1] = value
            self.writes.append((command, value))
        elif command == 0x4C and self.settings:
            self._link_settings(address)
        elif command == 0x03:
            texts = struct.pack("=32s32s32s", b"igc", b"6.18", b"1057:8754")
            ctypes.memmove(address + 4, texts, 96)
        else:
            raise OSError(errno.EOPNOTSUPP, "Operation not supported")
        return request

    def _link_settings(self, address: int) -> None:
        (words,) = struct.unpack("=b", ctypes.string_at(address + 15, 1))
        if words != 4:
            ctypes.memmove(address + 15, struct.pack("=b", -4), 1)
            return
        ctypes.memmove(address + 4, struct.pack("=IB", self.speed, self.duplex), 5)
        ctypes.memset(address + 48, 0xFF, 3 * 4 * 4)  # the three masks that the caller has room for


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr("heliograph.kernel.ethtool.fcntl.ioctl", made.ioctl)
    return made


def test_lro_goes_off_and_on_and_leaves_the_other_flags_alone(driver: Driver) -> None:
    assert ethtool.get_lro(3, "eth0")
    ethtool.put_lro(3, "eth0", on=False)
    assert driver.words[0x25] == NTUPLE
    assert not ethtool.get_lro(3, "eth0")
    ethtool.put_lro(3, "eth0", on=False)
    ethtool.put_lro(3, "eth0", on=True)
    assert driver.writes == [(0x26, NTUPLE), (0x26, NTUPLE | LRO)]


def test_driver_without_the_feature_has_it_off(driver: Driver) -> None:
    assert ethtool.get(3, "eth0", ethtool.TSO) == 0
    ethtool.put(3, "eth0", ethtool.TSO, 0)
    with pytest.raises(OSError, match="not supported"):
        ethtool.put(3, "eth0", ethtool.TSO, 1)


def test_link_info(driver: Driver) -> None:
    assert ethtool.link_info(3, "eth0") == ethtool.LinkInfo(
        2_500_000_000, "full", "igc", "6.18", "1057:8754"
    )


def test_unknown_speed_and_duplex(driver: Driver) -> None:
    driver.speed, driver.duplex = 0xFFFFFFFF, 0xFF
    info = ethtool.link_info(3, "eth0")
    assert (info.speed_bps, info.duplex) == (None, None)
    driver.settings = False
    info = ethtool.link_info(3, "eth0")
    assert (info.speed_bps, info.duplex, info.driver) == (None, None, "igc")
