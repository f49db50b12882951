# SPDX-License-Identifier: Apache-2.0
"""What of Devices the kernel cannot be made to do at will: losses, dumps cut into, refusals.

Everything else is in tests/system/test_devices.py, with the real kernel.
"""

import asyncio
import errno
import struct
from collections import deque
from collections.abc import Callable

import pytest
from tests.unit.waiting import rest, until

from heliograph.errors import EnvironmentFaultError, HeliographError
from heliograph.kernel import devices as module
from heliograph.kernel.devices import Devices
from heliograph.kernel.links import RTM_DELLINK, RTM_GETLINK, RTM_NEWLINK
from heliograph.kernel.netlink import NLM_F_DUMP, Answer, EventsLostError, NetlinkError, text, u32


def link(ifindex: int, name: str, mtu: int = 1500) -> bytes:
    return struct.pack("=BxHiII", 0, 1, ifindex, 0, 0) + text(3, name) + u32(4, mtu)


class Kernel:
    """Stands for both sockets: what it knows it answers, what it announces waits in `events`."""

    def __init__(self) -> None:
        self.links = {1: link(1, "lo"), 2: link(2, "eth0")}
        self.events: deque[tuple[int, bytes] | None] = deque()  # None: some were lost
        self.dumps = 0
        self.interrupted = 0
        self.refuses: NetlinkError | None = None
        self.read: Callable[[], None] = lambda: None

    def execute(self, kind: int, body: bytes, flags: int = 0) -> Answer:
        if self.refuses:
            raise self.refuses
        if flags & NLM_F_DUMP:
            self.dumps += 1
            self.interrupted -= self.interrupted > 0
            return Answer(list(self.links.values()), whole=not self.interrupted)
        (ifindex,) = struct.unpack_from("=4xi", body)
        return Answer([self.links[ifindex]] if kind == RTM_GETLINK else [], whole=True)

    def receive(self) -> list[tuple[int, bytes]] | None:
        if not self.events:
            return None
        event = self.events.popleft()
        if event is None:
            raise EventsLostError
        return [event]

    def discard(self) -> None:
        self.events.clear()

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(module, "RequestSocket", lambda: made)
    monkeypatch.setattr(module, "EventSocket", lambda groups: made)
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.005)

    def add_reader(self: object, fd: int, callback: Callable[[], None]) -> None:
        made.read = callback

    loop = asyncio.SelectorEventLoop
    monkeypatch.setattr(loop, "add_reader", add_reader)
    monkeypatch.setattr(loop, "remove_reader", lambda self, fd: True)
    return made


async def test_a_burst_of_events_is_told_once_and_costs_no_dump(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("heliograph.kernel.devices.COALESCE_SECONDS", 0.5)  # also if we are slow
    async with Devices() as devices:
        told: list[set[str]] = []
        devices.on_change = told.append
        kernel.events.extend((RTM_NEWLINK, link(2, "eth0", mtu)) for mtu in range(1000, 1100))
        kernel.events.append((RTM_NEWLINK, link(3, "eth1")))
        kernel.read()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        kernel.events.append((RTM_DELLINK, link(3, "eth1")))
        kernel.read()
        await until(lambda: told)
        await rest()
        assert told == [{"eth0", "eth1"}]
        assert devices.by_name["eth0"].mtu == 1099
        assert kernel.dumps == 1


async def test_what_waited_when_events_were_lost_does_not_win_over_the_dump(
    kernel: Kernel,
) -> None:
    async with Devices() as devices:
        kernel.links = {1: link(1, "lo"), 2: link(2, "eth0", 9000)}
        kernel.events.extend([None, (RTM_NEWLINK, link(2, "eth0", 68))])
        kernel.read()
        assert devices.by_name["eth0"].mtu == 9000
        assert kernel.dumps == 2


async def test_dump_cut_into_is_repeated(kernel: Kernel) -> None:
    kernel.interrupted = 3
    async with Devices():
        assert kernel.dumps == 3


async def test_dump_always_cut_into_is_taken_and_tried_again(
    kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.interrupted = 1000
    async with Devices() as devices:
        assert kernel.dumps == module.DUMP_TRIES
        assert set(devices.by_name) == {"lo", "eth0"}
        assert "trying again" in caplog.text
        kernel.interrupted = 0
        kernel.links[3] = link(3, "eth1")
        await until(lambda: "eth1" in devices.by_name)
        assert kernel.dumps == module.DUMP_TRIES + 1


async def test_failing_dump_after_a_loss_is_tried_again(kernel: Kernel) -> None:
    async with Devices() as devices:
        kernel.refuses = NetlinkError(errno.ENOBUFS, "No buffer space available")
        kernel.events.append(None)
        kernel.read()
        kernel.refuses = None
        kernel.links[3] = link(3, "eth1")
        await until(lambda: "eth1" in devices.by_name)


async def test_nothing_is_told_or_read_after_the_end(kernel: Kernel) -> None:
    told: list[set[str]] = []
    async with Devices() as devices:
        devices.on_change = told.append
        kernel.interrupted = 1000
        kernel.events.append(None)
        kernel.links[2] = link(2, "eth0", 9000)
        kernel.read()
    dumps = kernel.dumps
    await rest(0.05)
    assert told == []
    assert kernel.dumps == dumps


@pytest.mark.parametrize(
    ("number", "kind", "words"),
    [
        (errno.EPERM, EnvironmentFaultError, "eth0: set up: not permitted: run as root or with"),
        (errno.ENODEV, HeliographError, "eth0: set up: the device is gone"),
        (errno.EBUSY, HeliographError, "eth0: set up: the kernel's own words"),
    ],
)
async def test_refusals(
    kernel: Kernel, number: int, kind: type[HeliographError], words: str
) -> None:
    async with Devices() as devices:
        kernel.refuses = NetlinkError(number, "the kernel's own words")
        with pytest.raises(HeliographError) as caught:
            await devices.set_up(2, True)
        assert type(caught.value) is kind
        assert str(caught.value).startswith(words)
