# SPDX-License-Identifier: Apache-2.0
"""What connections that watch flows are told, as seen of Open vSwitch 3.1, and what they miss."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from random import Random
from typing import Any, cast

import pytest
import pytest_asyncio
from tests.unit.control.client import Client
from tests.unit.control.fakes import Switch
from tests.unit.flows import mods
from tests.unit.flows.mods import DELETE, MODIFY, ONE, TWO, group, ip, mod, port

from heliograph.control.channel import Channel
from heliograph.control.monitors import Monitors
from heliograph.flows.flow import SECOND
from heliograph.flows.tables import Tables
from heliograph.openflow import messages as m
from heliograph.openflow import monitors as o
from heliograph.openflow.actions import Actions, Group, Output
from heliograph.openflow.codec import Framer, decode
from heliograph.openflow.flows import FlowMod, GroupCommand, RemovedReason
from heliograph.openflow.match import Match
from heliograph.openflow.message import Message

every_version = pytest.mark.parametrize("version", [1, 4, 5, 6])
Flags = o.MonitorFlags
CHANGES = Flags.ADD | Flags.DELETE | Flags.MODIFY | Flags.ACTIONS
ALL = CHANGES | Flags.INITIAL
ATOMIC = m.BundleFlags.ATOMIC | m.BundleFlags.ORDERED
ADDED, DELETED, MODIFIED = o.FlowEvent.ADDED, o.FlowEvent.DELETED, o.FlowEvent.MODIFIED


def watch(flags: Flags = ALL, number: int = 0, **said: Any) -> o.MonitorRequest:
    return o.MonitorRequest((o.Monitor(id=number, flags=flags, **said),))


Told = tuple[o.FlowEvent, Match, Actions] | int


def told(messages: Iterable[Message | str | None]) -> list[Told]:
    """Events, what they are of, and actions; numbers of own messages."""
    found: list[Told] = []
    for message in messages:
        assert isinstance(message, o.MonitorReply), message
        for entry in message.entries:
            if isinstance(entry, o.OwnUpdate):
                found.append(entry.xid)
            else:
                found.append((entry.event, entry.match, entry.actions))
    return found


@pytest_asyncio.fixture
async def other(switch: Switch) -> AsyncIterator[Client]:
    """A controller that changes flows."""
    client = await Client.connect(switch.path, 6)
    yield client
    await client.close()


@every_version
async def test_what_others_do_is_told(switch: Switch, other: Client, version: int) -> None:
    await other.ask(mod(match=port(9), actions=TWO))
    client = await Client.connect(switch.path, version)
    first = o.FlowEvent.INITIAL if version >= 5 else ADDED
    assert told(await client.ask(watch())) == [(first, port(9), TWO)]
    steps: list[tuple[FlowMod, list[Told]]] = [
        (mod(match=port(1)), [(ADDED, port(1), ONE)]),
        (mod(match=port(1), cookie=5), [(ADDED, port(1), ONE)]),
        (mod(MODIFY, match=port(1), actions=TWO), [(MODIFIED, port(1), TWO)]),
        (mod(MODIFY, match=port(1), actions=TWO), []),
        (mod(DELETE, match=port(1)), [(DELETED, port(1), TWO)]),
    ]
    for change, wanted in steps:
        await other.ask(change)
        assert told(await client.ask()) == wanted, change
    await client.close()


async def test_another_cookie_is_a_modification(switch: Switch) -> None:
    changer, client = [await Client.connect(switch.path, 1) for _ in range(2)]
    await client.ask(watch())
    for cookie in (5, 5, 6):
        await changer.ask(mod(MODIFY, match=port(1), cookie=cookie))
    said = [(ADDED, port(1), ONE), (MODIFIED, port(1), ONE)]
    assert told(await client.ask()) == said
    await client.close()
    await changer.close()


@every_version
async def test_what_oneself_does_is_told_in_short(
    switch: Switch, other: Client, version: int
) -> None:
    client = await Client.connect(switch.path, version)
    await client.ask(watch())
    tables = 0xFF if version == 1 else 0
    add = mod(match=port(1), table_id=tables)
    assert told(await client.ask(add)) == [2]
    assert told(await client.ask(mod(DELETE, match=port(5), table_id=tables))) == []
    await client.ask(watch(ALL | Flags.OWN, 1, match=port(1)))
    assert told(await client.ask(add)) == [(ADDED, port(1), ONE)]
    gone = mod(DELETE, table_id=tables)
    await client.ask(mod(match=port(2), table_id=tables))
    found = told(await client.ask(gone))
    assert sorted(map(str, found)) == sorted(map(str, [(DELETED, port(1), ONE), 7]))
    await client.close()


async def test_a_bundle_is_told_before_it_is_answered(switch: Switch, other: Client) -> None:
    foreign, own = [await Client.connect(switch.path, 5) for _ in range(2)]
    await foreign.ask(watch())
    await own.ask(watch(ALL, match=port(2)))
    await own.ask(m.BundleControl(3, m.BundleAction.OPEN_REQUEST, ATOMIC))
    changes = [
        mod(match=port(1)),
        mod(match=port(2)),
        mod(MODIFY, match=port(2), actions=TWO),
        mod(DELETE, match=port(1)),
    ]
    for number, change in enumerate(changes, 3):
        assert await own.ask(m.BundleAdd(3, ATOMIC, change, number)) == []
    assert await foreign.ask() == []
    commit = m.BundleControl(3, m.BundleAction.COMMIT_REQUEST, ATOMIC)
    short, reply = await own.ask(commit)
    assert told([short]) == [4]  # the first of its messages that did something here
    assert reply == m.BundleControl(3, m.BundleAction.COMMIT_REPLY, ATOMIC)
    assert told(await foreign.ask()) == [
        (ADDED, port(1), ONE),
        (ADDED, port(2), ONE),
        (MODIFIED, port(2), TWO),
        (DELETED, port(1), ONE),
    ]
    await foreign.close()
    await own.close()


async def test_why_flows_went_is_told(switch: Switch, other: Client) -> None:
    now = [switch.bridge.now()]
    switch.bridge.now = lambda: now[0]
    client = await Client.connect(switch.path, 4)
    await client.ask(watch(Flags.DELETE))
    await other.ask(group(5, ONE))
    await other.ask(mod(match=port(1), actions=(Group(5),)))
    await other.ask(mod(match=port(2), hard_timeout=3))
    await other.ask(mod(match=port(3), idle_timeout=6))
    await other.ask(mod(match=port(4)))
    await other.ask(mod(DELETE, match=port(4)))
    await other.ask(group(5, command=GroupCommand.DELETE))
    for _ in range(2):
        now[0] += 4 * SECOND
        await switch.bridge.tick()
    reasons = [
        (entry.match, entry.reason)
        for message in await client.ask()
        for entry in cast(o.MonitorReply, message).entries
        if isinstance(entry, o.FlowUpdate)
    ]
    assert reasons == [
        (port(4), RemovedReason.DELETE),
        (port(1), RemovedReason.GROUP_DELETE),
        (port(2), RemovedReason.HARD_TIMEOUT),
        (port(3), RemovedReason.IDLE_TIMEOUT),
    ]
    await client.close()


FILTERS: list[tuple[dict[str, Any], list[FlowMod], list[tuple[o.FlowEvent, Match]]]] = [
    (
        {"table_id": 2},
        [mod(match=port(1)), mod(match=port(1), table_id=2)],
        [(ADDED, port(1))],
    ),
    (
        {"match": ip(0x0A000000, 8)},
        [mod(match=ip(0x0A010203)), mod(match=ip(0x0B000000, 8)), mod(match=ip(0x0A000000, 7))],
        [(ADDED, ip(0x0A010203))],
    ),
    (  # a flow that outputs there no longer is told of, and then no more
        {"out_port": 2},
        [
            mod(match=port(1), actions=TWO),
            mod(MODIFY, match=port(1), actions=ONE),
            mod(DELETE, match=port(1)),
        ],
        [(ADDED, port(1)), (MODIFIED, port(1))],
    ),
    (  # as in Open vSwitch one that leaves a group is not
        {"out_group": 5},
        [
            mod(match=port(1), actions=(Group(5),)),
            mod(MODIFY, match=port(1), actions=ONE),
            mod(MODIFY, match=port(1), actions=(Output(3), Group(5))),
        ],
        [(ADDED, port(1)), (MODIFIED, port(1))],
    ),
]


@pytest.mark.parametrize("case", range(len(FILTERS)))
async def test_only_what_is_asked_for_is_told(switch: Switch, other: Client, case: int) -> None:
    said, changes, wanted = FILTERS[case]
    await other.ask(group(5, ONE))
    client, late = [await Client.connect(switch.path, 6) for _ in range(2)]
    assert told(await client.ask(watch(ALL & ~Flags.ACTIONS, **said))) == []
    for change in changes:
        await other.ask(change)
    found = told(await client.ask())
    assert found == [(event, match, ()) for event, match in wanted]
    listed = [entry for entry in told(await late.ask(watch(**said))) if not isinstance(entry, int)]
    assert {match for _event, match, _actions in listed} <= {match for _event, match in wanted}
    await client.close()
    await late.close()


@pytest.mark.parametrize(
    ("flag", "event"), [(Flags.ADD, ADDED), (Flags.DELETE, DELETED), (Flags.MODIFY, MODIFIED)]
)
async def test_only_events_asked_for_are_told(
    switch: Switch, other: Client, flag: Flags, event: o.FlowEvent
) -> None:
    await other.ask(mod(match=port(9)))
    client = await Client.connect(switch.path, 5)
    assert told(await client.ask(watch(flag))) == []
    for command, actions in ((mods.ADD, ONE), (MODIFY, TWO), (DELETE, ONE)):
        await other.ask(mod(command, match=port(1), actions=actions))
    assert told(await client.ask()) == [(event, port(1), ())]
    await client.close()


@every_version
async def test_monitors_are_told_apart_by_their_numbers(
    switch: Switch, other: Client, version: int
) -> None:
    client = await Client.connect(switch.path, version)
    both = o.MonitorRequest((*watch(number=1, match=port(1)).monitors, *watch(number=2).monitors))
    assert told(await client.ask(both)) == []
    again = o.MonitorRequest((*watch(number=3).monitors, *watch(number=2).monitors))
    assert await client.ask(again) == ["OFPMOFC_MONITOR_EXISTS"]  # and 3 is not made either
    await other.ask(mod(match=port(1)))
    assert told(await client.ask()) == [(ADDED, port(1), ONE)]  # once for both
    for number, answer in ((3, "OFPMOFC_UNKNOWN_MONITOR"), (1, None), (1, "UNKNOWN"), (2, None)):
        gone = o.Monitor(id=number, flags=Flags.NONE, command=o.MonitorCommand.DELETE)
        cancel: Message = o.MonitorCancel(number) if version < 5 else o.MonitorRequest((gone,))
        said = await client.ask(cancel)
        if answer:
            assert answer in str(said[0])
        else:
            assert told(said) == []
    await other.ask(mod(match=port(2)))
    assert await client.ask() == []
    assert await client.ask(watch(table_id=64)) == ["OFPBRC_BAD_TABLE_ID"]
    await client.close()


@pytest.mark.parametrize("version", [5, 6])
async def test_a_monitor_is_modified(switch: Switch, other: Client, version: int) -> None:
    client = await Client.connect(switch.path, version)
    await client.ask(watch(number=4))
    await other.ask(mod(match=port(1), table_id=3))
    changed = o.Monitor(id=4, flags=ALL, table_id=3, command=o.MonitorCommand.MODIFY)
    added, listed = await client.ask(o.MonitorRequest((changed,)))
    assert told([added, listed]) == [
        (ADDED, port(1), ONE),
        (o.FlowEvent.INITIAL, port(1), ONE),
    ]
    await other.ask(mod(match=port(2)))
    assert await client.ask() == []
    unknown = o.Monitor(id=5, flags=ALL, command=o.MonitorCommand.MODIFY)
    assert await client.ask(o.MonitorRequest((unknown,))) == ["OFPMOFC_UNKNOWN_MONITOR"]
    await client.close()


async def test_there_is_an_end_of_monitors(switch: Switch) -> None:
    client = await Client.connect(switch.path, 5)
    many = [o.Monitor(id=n, flags=Flags.ADD) for n in range(65)]
    assert await client.ask(o.MonitorRequest(tuple(many))) == ["OFPMOFC_INVALID_MONITOR"]
    assert await client.ask(o.MonitorRequest(tuple(many[1:]))) == [o.MonitorReply(())]
    await client.close()


class Pipe:
    """A channel whose far end reads when it is told to, and what came there."""

    def __init__(self) -> None:
        self.is_full = False
        self.framer = Framer()
        self.failures: list[str] = []
        self._read = asyncio.Event()

    def post(self, data: bytes) -> None:
        self.framer.feed(data)

    async def drain(self) -> None:
        if self.is_full:
            self._read.clear()
            await self._read.wait()

    def give_up(self, why: str) -> None:
        self.failures.append(why)

    def sent(self) -> list[Message]:
        """Since it was asked last."""
        found = []
        while frame := self.framer.next():
            found.append(decode(frame))
        return found

    def read(self) -> list[Message]:
        self.is_full = False
        self._read.set()
        return self.sent()


class Watched:
    """Tables, and a connection that knows what it was told of them."""

    def __init__(self) -> None:
        self.tables, self.pipe = Tables(), Pipe()
        self.monitors = Monitors(4, cast(Channel, self.pipe))
        self.known: dict[Match, Actions] = {}

    def begin(self) -> o.MonitorReply:
        return self.monitors.change(watch(), self.tables)

    def change(self, *changes: FlowMod) -> None:
        self.monitors.follow(self.tables.change_all(changes, 5).steps)

    def learn(self, messages: Iterable[Message]) -> None:
        for message in messages:
            if not isinstance(message, o.MonitorReply):
                continue
            for entry in message.entries:
                assert isinstance(entry, o.FlowUpdate)
                if entry.event == DELETED:
                    del self.known[entry.match]  # it was known
                else:
                    assert entry.event != MODIFIED or entry.match in self.known
                    self.known[entry.match] = entry.actions

    @property
    def there(self) -> dict[Match, Actions]:
        return {flow.match: flow.actions for flow in self.tables.flows.values()}

    def shuffle(self, random: Random, count: int) -> None:
        for _ in range(count):
            command = random.choice([mods.ADD, MODIFY, DELETE])
            actions = random.choice([ONE, TWO])
            self.change(mod(command, match=port(random.randrange(1, 12)), actions=actions))


async def test_who_does_not_read_is_told_the_outcome_later() -> None:
    watched, random = Watched(), Random(5)
    watched.learn([watched.begin()])
    watched.monitors.release()
    for _ in range(100):
        watched.shuffle(random, random.randrange(5))
        watched.pipe.is_full = True
        watched.change(mod(match=port(99), cookie=random.getrandbits(30)))
        *before, paused = watched.pipe.sent()
        watched.learn(before)
        assert paused == o.MonitorPaused()
        assert watched.known == watched.there
        await asyncio.sleep(0)
        watched.shuffle(random, random.randrange(40))
        assert watched.pipe.sent() == []
        watched.pipe.read()
        for _ in range(3):
            await asyncio.sleep(0)
        *late, resumed = watched.pipe.read()
        watched.learn(late)
        assert resumed == o.MonitorResumed()
        assert watched.known == watched.there


async def test_changes_wait_while_the_flows_to_begin_with_are_sent() -> None:
    random = Random(6)
    for _ in range(100):
        watched = Watched()
        watched.shuffle(random, 10)
        listed = watched.begin()
        watched.shuffle(random, random.randrange(20))
        assert watched.pipe.read() == []
        watched.learn([listed])
        watched.monitors.release()
        watched.learn(watched.pipe.read())
        assert watched.known == watched.there
        watched.shuffle(random, 5)
        watched.learn(watched.pipe.read())
        assert watched.known == watched.there


@pytest.mark.parametrize("seed", range(20))
async def test_what_was_missed_waits_while_the_flows_to_begin_with_are_sent(seed: int) -> None:
    watched, random = Watched(), Random(seed)
    watched.learn([watched.begin()])
    watched.monitors.release()
    watched.pipe.is_full = True
    watched.change(mod(match=port(99)))
    watched.learn(watched.pipe.sent())
    watched.shuffle(random, 20)
    listed = watched.monitors.change(watch(number=1), watched.tables)
    watched.shuffle(random, 20)
    for _ in range(3):
        assert watched.pipe.read() == []
        await asyncio.sleep(0)
    watched.learn([listed])
    watched.monitors.release()
    assert watched.pipe.read() == []
    await asyncio.sleep(0)
    *late, resumed = watched.pipe.read()
    watched.learn(late)
    assert resumed == o.MonitorResumed()
    assert watched.known == watched.there


async def test_what_came_and_went_meanwhile_is_not_told() -> None:
    watched = Watched()
    watched.begin()
    watched.change(mod(match=port(1)), mod(MODIFY, match=port(1), actions=TWO))
    watched.change(mod(DELETE, match=port(1)))
    watched.change(mod(match=port(2)), mod(MODIFY, match=port(2), actions=TWO))
    watched.monitors.release()
    assert told(watched.pipe.read()) == [(ADDED, port(2), TWO)]


async def test_a_monitor_that_is_cancelled_tells_nothing_late() -> None:
    watched = Watched()
    watched.begin()
    watched.pipe.is_full = True
    watched.monitors.release()
    watched.change(mod(match=port(1)))
    watched.change(mod(match=port(2)))
    watched.monitors.cancel(0)
    watched.pipe.read()
    for _ in range(3):
        await asyncio.sleep(0)
    assert watched.pipe.read() == [o.MonitorResumed()]


async def test_who_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("heliograph.control.monitors._MOST_HELD", 10)
    watched = Watched()
    watched.begin()
    for number in range(1, 11):
        watched.change(mod(match=port(number)))
    assert watched.pipe.failures == []
    watched.change(mod(match=port(11)))
    assert watched.pipe.failures == ["it does not read what became of 11 flows"]


async def test_a_connection_that_ends_is_not_waited_for() -> None:
    watched = Watched()
    watched.begin()
    watched.monitors.release()
    watched.pipe.is_full = True
    watched.change(mod(match=port(1)))
    await asyncio.sleep(0)
    watched.monitors.close()
    watched.pipe.read()
    for _ in range(3):
        await asyncio.sleep(0)
    assert watched.pipe.read() == []
