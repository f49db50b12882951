# SPDX-License-Identifier: Apache-2.0
"""What is read of the counters while segments are on their way."""

import time
from collections.abc import Callable

import pytest

from heliograph.kernel import counters, layouts
from heliograph.kernel.counters import CounterMap, Counters
from heliograph.kernel.layouts import Reason

WIDTH = layouts.MIRROR_COUNTERS.size // 8


class Mirrors(CounterMap):
    """Mirrors of which each has counted (selected, delivered, segmented, arrived), without a
    kernel."""

    def __init__(self, counted: dict[int, tuple[int, int, int, int]]) -> None:
        super().__init__(-1, 8 * WIDTH, 1)
        self.counted = counted

    def read(self, slot: int) -> list[int]:
        selected, *rest = self.counted[slot]
        values = [selected, selected * 100, *rest]
        return values + [0] * (WIDTH - len(values))


def waits(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], None]) -> list[float]:
    """How long was waited; each time `meanwhile` happens."""
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        meanwhile()

    monkeypatch.setattr(time, "sleep", sleep)
    return slept


def read(mirrors: Mirrors) -> dict[int, counters.MirrorCounts]:
    return Counters(Mirrors({}), mirrors).read([], mirrors.counted).mirrors


def test_segments_are_waited_for_once_however_many_mirrors_miss_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """D2: with those that arrive meanwhile the sum is exact, and those that do not are lost."""
    mirrors = Mirrors({0: (40, 0, 40, 0), 1: (50, 10, 40, 0), 2: (7, 7, 0, 0)})
    slept = waits(
        monkeypatch, lambda: mirrors.counted.update({0: (40, 40, 40, 40), 1: (90, 80, 80, 70)})
    )
    found = read(mirrors)
    assert sum(slept) == pytest.approx(counters.SEGMENTER_SECONDS)
    assert {slot: counts.drops for slot, counts in found.items()} == {
        0: {},
        1: {Reason.DROP_SEGMENTER: 10},
        2: {},
    }
    assert all(counts.copies == counts.packets for counts in found.values())


def test_what_arrives_meanwhile_hides_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """D6: 30 are lost, and at each reading another number is on its way besides."""
    on_their_way = iter((9, 4, 7, 2, 6))
    mirrors = Mirrors({0: (100, 65, 100, 65)})

    def traffic() -> None:
        handed, away = mirrors.counted[0][2] + 1000, next(on_their_way)
        mirrors.counted[0] = (handed, handed - 30 - away, handed, handed - 30 - away)

    waits(monkeypatch, traffic)
    assert read(mirrors)[0].drops == {Reason.DROP_SEGMENTER: 32}
    waits(monkeypatch, lambda: mirrors.counted.update({0: (9000, 8970, 9000, 8970)}))
    assert read(mirrors)[0].drops == {Reason.DROP_SEGMENTER: 30}


def test_nothing_is_waited_for_when_all_have_arrived(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = waits(monkeypatch, lambda: None)
    found = read(Mirrors({0: (40, 40, 40, 40)}))
    assert found[0].delivered == 40
    assert slept == []


class Ports(CounterMap):
    """Ports of which each has counted so much in these fields, without a kernel."""

    def __init__(self, counted: dict[int, dict[str, int]]) -> None:
        super().__init__(-1, layouts.PORT_COUNTERS.size, 1)
        self.counted = counted

    def read(self, slot: int) -> list[int]:
        values = [0] * (layouts.PORT_COUNTERS.size // 8)
        for name, value in self.counted[slot].items():
            values[layouts.PortCounters._fields.index(name)] = value
        return values


def read_ports(ports: Ports) -> dict[int, counters.PortCounts]:
    return Counters(ports, Mirrors({})).read(ports.counted, []).ports


def test_a_tunnel_ports_frames_are_waited_for_once_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """What has not arrived at the segmenter's far end by then is lost, and said to be."""
    ports = Ports(
        {
            5: {"handed": 40, "arrived": 30, "tx_packets": 28, "cut_mtu": 3},
            6: {"handed": 9, "arrived": 9, "tx_packets": 9},
            7: {"rx_packets": 1, "handed": 5, "arrived": 1},
        }
    )
    late = {"handed": 50, "arrived": 50, "tx_packets": 38, "tx_bytes": 3800, "cut_mtu": 4}
    slept = waits(
        monkeypatch,
        lambda: ports.counted.update({5: late, 7: {"rx_packets": 1, "handed": 5, "arrived": 4}}),
    )
    found = read_ports(ports)
    assert sum(slept) == pytest.approx(counters.SEGMENTER_SECONDS)
    assert (found[5].tx_packets, found[5].tx_bytes, found[5].cut_mtu) == (38, 3800, 4)
    assert (found[5].drops, found[6].drops) == ({}, {}), "all that had been handed has arrived"
    assert found[7].drops == {Reason.DROP_SEGMENTER: 1}
    assert found[7].rx_packets == 1


def test_ports_and_mirrors_wait_together(monkeypatch: pytest.MonkeyPatch) -> None:
    slept = waits(monkeypatch, lambda: None)
    ports, mirrors = Ports({5: {"handed": 2}}), Mirrors({0: (2, 0, 2, 0)})
    found = Counters(ports, mirrors).read(ports.counted, mirrors.counted)
    assert sum(slept) == pytest.approx(counters.SEGMENTER_SECONDS)
    assert found.ports[5].drops == found.mirrors[0].drops == {Reason.DROP_SEGMENTER: 2}


def test_what_arrives_twice_is_no_negative_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frame that is counted out before its super-frame was counted in, on another CPU."""
    waits(monkeypatch, lambda: None)
    assert read_ports(Ports({5: {"handed": 2, "arrived": 3}}))[5].drops == {}
