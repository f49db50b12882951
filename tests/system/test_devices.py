# SPDX-License-Identifier: Apache-2.0
"""Network devices through netlink, in real namespaces; `ip` is the second opinion."""

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
import statistics
import struct
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import PATIENCE

from heliograph.errors import HeliographError
from heliograph.kernel.devices import Device, Devices, Restore
from heliograph.kernel.netlink import EVENT_BUFFER

FAR = "hg0123456789ab"
ROW = str(uuid.uuid4())
Scenario = Callable[[Devices], Awaitable[None]]


@pytest.fixture
def host(lab: Lab) -> Namespace:
    return lab.namespace("host")


def within(namespace: Namespace, scenario: Scenario) -> None:
    """Run a scenario with the devices of a namespace, in a thread that entered it."""

    async def bounded() -> None:
        async with asyncio.timeout(2 * PATIENCE), Devices() as devices:
            await scenario(devices)

    namespace.call(lambda: asyncio.run(bounded()))


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        await asyncio.sleep(0.002)


def seen(namespace: Namespace, device: str) -> dict[str, Any]:
    """What `ip` says of a device."""
    (facts,) = json.loads(namespace.ip(f"-d -j link show dev {device}"))
    assert isinstance(facts, dict)
    return facts


async def pair(devices: Devices, name: str = "tap1", far: str = FAR) -> tuple[Device, Device]:
    return await devices.create_internal(name, far, ROW, None, None)


def test_internal_port_is_a_pair_whose_far_end_is_up_and_mute(host: Namespace) -> None:
    async def scenario(devices: Devices) -> None:
        mac = "02:00:00:00:00:01"
        near, far = await devices.create_internal("tap1", FAR, ROW, mac, 1400)
        assert (near, far) == (devices.by_name["tap1"], devices.by_name[FAR])
        assert (near.peer, far.peer) == (far.ifindex, near.ifindex)
        assert (near.mac, near.mtu, near.alias, near.kind) == (mac, 1400, ROW, "veth")
        assert (near.admin_up, far.admin_up, far.carrier) == (False, True, False)
        assert (far.alias, far.mtu, near.peer_elsewhere) == (ROW, 65535, False)
        facts = seen(host, FAR)
        assert facts["inet6_addr_gen_mode"] == "none"
        assert {"NOARP", "UP"} <= set(facts["flags"])
        disabled = Path("/proc/sys/net/ipv6/conf", FAR, "disable_ipv6")
        assert disabled.read_text() == "1\n"

    within(host, scenario)


def test_our_end_never_speaks(host: Namespace) -> None:
    """Nothing comes out of the user's end, which hears what our end's host stack would say."""

    async def scenario(devices: Devices) -> None:
        near, _ = await pair(devices)
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as listener:
            listener.bind(("tap1", 0x0003))
            listener.setblocking(False)
            listener.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)  # "network is down", still
            await devices.set_up(near.ifindex, True)
            heard: list[tuple[bool, str]] = []

            def hear() -> bool:
                """Whether the user's end itself has spoken."""
                with contextlib.suppress(BlockingIOError):
                    while True:
                        frame, address = listener.recvfrom(2048)
                        heard.append((address[2] == 4, frame.hex()))  # PACKET_OUTGOING
                return any(outgoing for outgoing, _ in heard)

            await until(hear)
            await asyncio.sleep(0.8)
            hear()
        assert [frame for outgoing, frame in heard if not outgoing] == []

    within(host, scenario)


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (("taken", FAR, ROW, None, None), "taken exists already (veth device, ifindex"),
        (("tap1", "taken", ROW, None, None), "taken exists already"),
        (("tap1", FAR, ROW, "01:00:00:00:00:01", None), "tap1: mac 01:00:00:00:00:01"),
        (("tap1", FAR, ROW, "nonsense", None), "tap1: mac 'nonsense'"),
        (("tap1", FAR, ROW, None, 67), "tap1: mtu 67 is outside 68..65535"),
        (("tap1", FAR, "x" * 300, None, None), "tap1: set alias"),
        (("other", FAR, ROW, None, None), "alternative name"),
        (("sixteen-bytes-xx", FAR, ROW, None, None), "longer than 15 bytes"),
        (("tap%d", FAR, ROW, None, None), "device name 'tap%d'"),
        (("tap 1", FAR, ROW, None, None), "device name 'tap 1'"),
        (("tap\ud800", FAR, ROW, None, None), "device name 'tap\\ud800'"),
    ],
)
def test_failed_creation_says_why_and_leaves_nothing(
    host: Namespace, wanted: tuple[str, str, str, str | None, int | None], words: str
) -> None:
    host.ip("link add taken type veth peer name partner")
    host.ip("link property add dev taken altname other")
    before = host.ip("-br link")

    async def scenario(devices: Devices) -> None:
        with pytest.raises(HeliographError) as caught:
            await devices.create_internal(*wanted)
        assert words in str(caught.value)
        assert set(devices.by_name) == {"lo", "taken", "partner"}

    within(host, scenario)
    assert host.ip("-br link") == before


def test_carrier_is_there_when_both_ends_are_up(host: Namespace) -> None:
    async def scenario(devices: Devices) -> None:
        near, far = await pair(devices)
        host.ip("link set tap1 up")
        await until(lambda: devices.by_name["tap1"].carrier and devices.by_name[FAR].carrier)
        changes = devices.by_name[FAR].carrier_changes
        host.ip("link set tap1 down")
        await until(lambda: not devices.by_name[FAR].carrier)
        assert devices.by_name[FAR].carrier_changes == changes + 1
        assert devices.by_name[FAR].admin_up
        assert not devices.by_name["tap1"].admin_up
        assert devices.by_index[near.ifindex].name == "tap1"
        assert devices.by_index[far.ifindex].name == FAR

    within(host, scenario)


@pytest.mark.parametrize("up", [False, True])
def test_users_end_moves_away_and_back(host: Namespace, lab: Lab, up: bool) -> None:
    guest = lab.namespace("guest")
    guest_name = guest.name

    async def scenario(devices: Devices) -> None:
        near, far = await pair(devices)
        await devices.set_up(near.ifindex, up)
        host.ip(f"link set tap1 netns {guest_name}")
        await until(lambda: "tap1" not in devices.by_name)
        await until(lambda: devices.by_name[FAR].peer_elsewhere)
        assert near.ifindex not in devices.by_index
        assert not devices.by_name[FAR].carrier

        guest.ip("link set tap1 name eth7 mtu 1300 up")
        await until(lambda: devices.by_name[FAR].carrier)
        there = await devices.user_end(far.ifindex)
        assert there is not None
        assert (there.name, there.mtu, there.mac) == ("eth7", 1300, near.mac)
        assert "eth7" not in devices.by_name

        # It comes back under another name, and under another number when its own is taken.
        host.ip(f"link add taken index {near.ifindex} type veth peer name partner")
        guest.ip(f"link set eth7 netns {host.name}")
        await until(lambda: "eth7" in devices.by_name)
        back = devices.by_name["eth7"]
        assert back.ifindex != near.ifindex
        assert (back.peer, back.peer_elsewhere) == (far.ifindex, False)
        assert devices.by_name[FAR].peer == back.ifindex
        assert not devices.by_name[FAR].peer_elsewhere
        assert await devices.user_end(far.ifindex) == back

    within(host, scenario)


@pytest.mark.parametrize("how", ["device", "namespace"])
def test_our_end_goes_with_the_users(host: Namespace, lab: Lab, how: str) -> None:
    guest = lab.namespace("guest")

    async def scenario(devices: Devices) -> None:
        _, far = await pair(devices)
        changed: set[str] = set()
        host.ip(f"link set tap1 netns {guest.name}")
        await until(lambda: devices.by_name[FAR].peer_elsewhere)
        devices.on_change = changed.update
        if how == "device":
            guest.ip("link delete dev tap1")
        else:
            lab.namespaces.remove(guest)
            guest.delete()
        await until(lambda: FAR not in devices.by_name)
        await until(lambda: FAR in changed)
        assert far.ifindex not in devices.by_index
        assert await devices.user_end(far.ifindex) is None

    within(host, scenario)


def test_renames_and_what_is_told_of_them(host: Namespace) -> None:
    host.ip("link add one type veth peer name two")

    async def scenario(devices: Devices) -> None:
        one, two = devices.by_name["one"], devices.by_name["two"]
        told: list[set[str]] = []
        devices.on_change = told.append
        host.ip("link set one name swap")
        host.ip("link set two name one")
        host.ip("link set swap name two")
        await until(lambda: told and devices.by_name["two"].ifindex == one.ifindex)
        assert devices.by_name["one"].ifindex == two.ifindex
        assert set(devices.by_name) == {"lo", "one", "two"}
        assert {"one", "two", "swap"} <= set().union(*told)

    within(host, scenario)


def test_leaving_a_bridge_is_not_vanishing(host: Namespace) -> None:
    """The kernel says RTM_DELLINK (family bridge) when a device merely leaves its bridge."""
    host.ip("link add one type veth peer name two")
    host.ip("link add br-lan type bridge")

    async def scenario(devices: Devices) -> None:
        host.ip("link set one master br-lan")
        await until(lambda: devices.by_name["one"].master == devices.by_name["br-lan"].ifindex)
        why = devices.why_not(devices.by_name["one"])
        assert why == (
            "one belongs to br-lan (bridge): release it with ip link set dev one nomaster"
        )
        host.ip("link set one nomaster")
        host.ip("link set one mtu 1234")
        await until(lambda: devices.by_name["one"].mtu == 1234)
        assert devices.by_name["one"].master == 0
        assert devices.why_not(devices.by_name["one"]) is None

    within(host, scenario)


def test_why_not(host: Namespace) -> None:
    host.ip("tuntap add mode tun name layer3")
    host.ip("tuntap add mode tap name layer2")

    async def scenario(devices: Devices) -> None:
        await pair(devices)
        reasons = {name: devices.why_not(device) for name, device in devices.by_name.items()}
        assert reasons.pop("layer2") is None
        assert (reasons.pop("lo") or "").startswith("lo is the loopback device: use")
        assert (reasons.pop("layer3") or "").startswith("layer3 (tun) carries no Ethernet")
        assert reasons.pop(FAR) == (
            f"{FAR} is the switch's own end of an internal port: use the user's end, tap1"
        )
        assert "set type=internal" in (reasons.pop("tap1") or "")
        assert not reasons

    within(host, scenario)


def test_lost_events_are_made_up_for(
    host: Namespace, lab: Lab, caplog: pytest.LogCaptureFixture
) -> None:
    host.ip("link add one type veth peer name two")
    flaps = EVENT_BUFFER // 1024  # two events each, of more than 2 KB
    batch = lab.path("batch")
    lines = "link set one mtu 1400\nlink set one mtu 1500\n" * flaps
    batch.write_text(lines + "link delete one\nlink add late type veth peer name later\n")

    async def scenario(devices: Devices) -> None:
        told: set[str] = set()
        devices.on_change = told.update
        host.ip(f"-batch {batch}")  # the loop stands still meanwhile, and reads nothing
        await until(lambda: "late" in devices.by_name)
        assert set(devices.by_name) == {"lo", "late", "later"}
        assert devices.by_name["late"].peer == devices.by_name["later"].ifindex
        await until(lambda: {"one", "two", "late", "later"} <= told)

    with caplog.at_level(logging.WARNING):
        within(host, scenario)
    assert any("events were lost" in record.message for record in caplog.records)


def test_settings_show_at_once_and_refusals_name_the_device(host: Namespace) -> None:
    host.ip("link add one type veth peer name two")

    async def scenario(devices: Devices) -> None:
        index = devices.by_name["one"].ifindex
        await devices.set_mtu(index, 9000)
        await devices.set_mac(index, "02:00:00:00:00:09")
        await devices.set_alias(index, "an alias")
        assert not devices.by_name["one"].admin_up
        one = devices.by_name["one"]
        assert (one.mtu, one.mac, one.alias) == (9000, "02:00:00:00:00:09", "an alias")
        await devices.set_up(index, True)
        assert devices.by_name["one"].admin_up
        await devices.set_alias(index, "")
        assert devices.by_name["one"].alias == ""
        facts = seen(host, "one")
        assert (facts["mtu"], facts["address"]) == (9000, "02:00:00:00:00:09")
        with pytest.raises(HeliographError, match=r"^one: mtu 70000 is outside 68\.\.65535$"):
            await devices.set_mtu(index, 70000)
        await devices.delete(index)
        with pytest.raises(HeliographError, match=f"^device {index}: set up: the device is gone$"):
            await devices.set_up(index, True)
        await devices.delete(index)

    within(host, scenario)


def test_existing_device_is_taken_and_put_back(host: Namespace) -> None:
    host.ip("link add one type veth peer name two")
    host.ip("link add chatty type veth peer name other")
    host.ip("link set chatty promisc on")

    async def scenario(devices: Devices) -> None:
        restores = {}
        for name in ("one", "chatty"):
            index = devices.by_name[name].ifindex
            found = await devices.as_found(index)
            restore = await devices.take(index)
            assert restore == found
            restores[name] = json.loads(json.dumps(dataclasses.asdict(restore)))
            assert devices.by_name[name].promiscuous
            assert "PROMISC" in seen(host, name)["flags"]
        host.ip("link set one name renamed")
        for record in restores.values():
            await devices.release(Restore(**record))
        assert "PROMISC" not in seen(host, "renamed")["flags"]
        assert "PROMISC" in seen(host, "chatty")["flags"]

        # Another device may have the number by then: it is left alone.
        restore = await devices.take(devices.by_name["renamed"].ifindex)
        host.ip("link delete renamed")
        await devices.release(restore)
        host.ip(f"link add stranger index {restore.ifindex} type veth peer name else")
        host.ip("link set stranger promisc on")
        await devices.release(restore)
        assert "PROMISC" in seen(host, "stranger")["flags"]

    within(host, scenario)


def udp_frame(host: Namespace, devices: Devices) -> bytes:
    """A UDP datagram of the host's stack, out of tap1, as our end receives it."""
    listener = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with listener, sender:
        listener.bind((FAR, 0x0800))
        listener.settimeout(PATIENCE)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, 25, b"tap1\0")  # SO_BINDTODEVICE
        sender.sendto(b"payload!", ("10.9.8.255", 4711))
        return listener.recv(2048)


def checksum_is_valid(frame: bytes) -> bool:
    """Whether the UDP checksum of an IPv4 frame without options is right (RFC 768)."""
    udp = frame[34:]
    pseudo = frame[26:34] + struct.pack("!HH", 17, len(udp))
    total: int = sum(struct.unpack(f"!{len(pseudo + udp) // 2}H", pseudo + udp))
    return total % 0xFFFF == 0  # a sum of ones' complement


def test_without_tx_offload_frames_carry_their_checksums(host: Namespace) -> None:
    async def scenario(devices: Devices) -> None:
        near, _ = await pair(devices)
        host.ip("address add 10.9.8.1/24 dev tap1")
        await devices.set_up(near.ifindex, True)
        await until(lambda: devices.by_name["tap1"].carrier)
        assert not checksum_is_valid(udp_frame(host, devices))
        await devices.set_offload(near.ifindex, tx=False, tso=False, gso=False)
        assert checksum_is_valid(udp_frame(host, devices))
        await devices.set_offload(near.ifindex, tx=True, tso=True, gso=True)
        assert not checksum_is_valid(udp_frame(host, devices))
        await devices.delete(near.ifindex)
        with pytest.raises(HeliographError, match="switch tx offload off: the device is gone"):
            await devices.set_offload(near.ifindex, tx=False, tso=False, gso=False)

    within(host, scenario)


def test_stats_and_driver(host: Namespace) -> None:
    async def scenario(devices: Devices) -> None:
        near, far = await pair(devices)
        host.ip("link set tap1 addrgenmode none up")
        await until(lambda: devices.by_name[FAR].carrier)
        before = await devices.stats()
        host.send("tap1", [bytes(12) + b"\x88\xb5" + bytes(86)] * 7)
        after = await devices.stats()
        assert set(after) == set(devices.by_index)
        sent, heard = after[near.ifindex], after[far.ifindex]
        assert sent.tx_packets - before[near.ifindex].tx_packets == 7
        assert sent.tx_bytes - before[near.ifindex].tx_bytes == 700
        assert heard.rx_packets - before[far.ifindex].rx_packets == 7
        (told,) = json.loads(host.ip(f"-s -j link show dev {FAR}"))
        # Nobody here takes frames of that type: the kernel counts them as dropped.
        assert heard.rx_dropped == told["stats64"]["rx"]["dropped"] >= 7
        assert heard.rx_bytes == told["stats64"]["rx"]["bytes"]

        info = await devices.link_info(near.ifindex)
        assert (info.driver, info.speed_bps, info.duplex) == ("veth", 10_000_000_000, "full")
        nothing = await devices.link_info(devices.by_name["lo"].ifindex)
        assert (nothing.driver, nothing.speed_bps, nothing.duplex) == ("", None, None)
        with pytest.raises(HeliographError, match=r"device 9999: .*gone"):
            await devices.link_info(9999)

    within(host, scenario)


def test_many_ports_cost_each_the_same(host: Namespace) -> None:
    """A dump for each would make the last cost 15 times the first (0.7 ms)."""

    async def scenario(devices: Devices) -> None:
        costs, far_ends = [], []
        for number in range(400):
            start = time.thread_time()
            _, far = await pair(devices, f"tap{number}", f"hg{number:012x}")
            costs.append(time.thread_time() - start)
            far_ends.append(far.ifindex)
        first, last = statistics.median(costs[:80]), statistics.median(costs[-80:])
        assert last < 4 * first, (first, last)
        known = dict(devices.by_index)
        await devices.resync()
        assert devices.by_index == known
        await devices.delete(*far_ends, 999_999)
        assert set(devices.by_name) == {"lo"}

    within(host, scenario)
