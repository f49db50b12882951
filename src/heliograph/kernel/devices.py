# SPDX-License-Identifier: Apache-2.0
"""The network devices of this process's namespace: facts kept current, and changes to them.

Strategy: one dump at the start, then events only; a new dump only when the kernel lost events.
Every change of ours reads the events it caused before it returns (the kernel queues them before
it acknowledges), so that `by_name` and `by_index` already show it.
"""

import asyncio
import errno
import functools
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from heliograph.errors import EnvironmentFaultError, HeliographError
from heliograph.kernel import ethtool, links
from heliograph.kernel.device_table import DeviceTable
from heliograph.kernel.ethtool import LinkInfo
from heliograph.kernel.links import Device, DeviceStats
from heliograph.kernel.netlink import (
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    EventsLostError,
    EventSocket,
    NetlinkError,
    RequestSocket,
    attribute,
    text,
    u32,
)

__all__ = ["Device", "DeviceStats", "Devices", "LinkInfo", "Restore"]

log = logging.getLogger(__name__)

IPV6_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")
FAR_NAME: Final = re.compile(r"hg[0-9a-f]{12}")
MAC: Final = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}")
UNFIT_IN_NAME: Final = re.compile(r"[/:%\s\x00-\x1f\x7f\ud800-\udfff]")
NAME_SIZE: Final = 15  # IFNAMSIZ without its terminating zero
DUMP_TRIES: Final = 10
RETRY_SECONDS: Final = 1.0
# The kernel announces one deed in several steps, milliseconds apart.
COALESCE_SECONDS: Final = 0.002


@dataclass(frozen=True, slots=True)
class Restore:
    """What an existing device was like before it became a port; plain values, fit for JSON."""

    ifindex: int
    name: str
    mac: str
    promiscuous: bool
    lro: bool


@contextmanager
def _blaming(what: str) -> Iterator[None]:
    """Turn the kernel's refusal into an error that names the device and the deed, `what`."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.EPERM:
            raise EnvironmentFaultError(
                f"{what}: not permitted: run as root or with CAP_NET_ADMIN"
            ) from error
        if error.errno in (errno.ENODEV, errno.ENXIO):
            raise HeliographError(f"{what}: the device is gone") from error
        where = f"{error.filename}: " if error.filename else ""
        raise HeliographError(f"{what}: {where}{error.strerror or error}") from error


def _check_name(name: str) -> None:
    """Raise HeliographError for what the kernel would refuse, or take for a pattern (%d)."""
    if not name or name in (".", "..") or UNFIT_IN_NAME.search(name):
        raise HeliographError(
            f"device name {name!r}: must not be '', '.' or '..', nor hold '/', ':', '%' or spaces"
        )
    if len(name.encode()) > NAME_SIZE:
        raise HeliographError(f"device name {name!r}: longer than {NAME_SIZE} bytes")


def _mac_bytes(device: str, mac: str) -> bytes:
    if not MAC.fullmatch(mac):
        raise HeliographError(f"{device}: mac {mac!r} is not of the form 02:00:00:00:00:01")
    octets = bytes.fromhex(mac.replace(":", ""))
    if octets[0] & 1 or not any(octets):
        raise HeliographError(f"{device}: mac {mac} is not the address of one device (unicast)")
    return octets


def _check_mtu(device: str, mtu: int, low: int, high: int) -> None:
    if not low <= mtu <= high:
        raise HeliographError(f"{device}: mtu {mtu} is outside {low}..{high}")


def mute_ipv6(name: str) -> None:
    """Keep the host's IPv6 from ever speaking on a device that is still down.

    Both are needed: disable_ipv6 can be undone for all devices at once (conf/all), and then no
    address must come into being. No file without IPv6 in the kernel, and nothing to mute.
    """
    if IPV6_SETTINGS.exists():
        for setting in ("addr_gen_mode", "disable_ipv6"):
            # 1 is "none" in the one and "yes" in the other
            (IPV6_SETTINGS / name / setting).write_text("1")


def _unless_gone(requests: RequestSocket, kind: int, body: bytes) -> None:
    try:
        requests.execute(kind, body)
    except NetlinkError as error:
        if error.errno != errno.ENODEV:
            raise


class Devices:
    """All devices of the namespace of the thread that enters this, as an asynchronous context.

    `on_change` is called from the event loop with the names of the devices whose facts changed,
    once per batch of events; a rename gives both names. Methods that change something raise
    HeliographError naming the device, the deed and the kernel's reason, EnvironmentFaultError
    when CAP_NET_ADMIN is missing.
    """

    def __init__(self) -> None:
        self._table = DeviceTable()
        self.by_name: Mapping[str, Device] = self._table.by_name
        self.by_index: Mapping[int, Device] = self._table.by_index
        self.on_change: Callable[[set[str]], None] = lambda names: None
        self._announcing = False
        self._open = False

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._requests = RequestSocket()
        try:
            self._events = EventSocket(links.RTMGRP_LINK)
        except BaseException:
            self._requests.close()
            raise
        self._open = True
        self._loop.add_reader(self._events.fileno(), self._drain)
        try:
            await self.resync()
        except BaseException:
            await self.__aexit__()
            raise
        self._table.take_changed()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._open = False
        self._loop.remove_reader(self._events.fileno())
        self._events.close()
        self._requests.close()

    # Facts

    async def resync(self) -> None:
        """Read all devices anew. What differs from what was known goes to `on_change`."""
        with _blaming("list of network devices"):
            self._dump()

    def _dump(self) -> None:
        # What waits is older than the answer; after a loss nothing newer would correct it.
        self._events.discard()
        for _ in range(DUMP_TRIES):
            answer = self._requests.execute(links.RTM_GETLINK, links.every_link(), NLM_F_DUMP)
            if answer.whole:
                break
        else:
            log.warning("network devices change faster than they can be listed; trying again")
            self._relist_later()
        self._table.replace(device for device in map(links.parse_link, answer.bodies) if device)
        self._announce_soon()

    def _relist_later(self) -> None:
        self._loop.call_later(RETRY_SECONDS, self._relist)

    def _relist(self) -> None:
        if not self._open:
            return
        try:
            self._dump()
        except OSError as error:
            log.warning("network devices cannot be listed (%s); trying again", error)
            self._relist_later()

    def _drain(self) -> None:
        """Take in the events that wait: the kernel makes them far slower than we read them."""
        while True:
            try:
                events = self._events.receive()
            except EventsLostError:
                log.warning("network device events were lost; listing all devices anew")
                self._relist()
                continue
            if events is None:
                break
            for kind, body in events:
                self._take_in(kind, body)
        self._announce_soon()

    def _take_in(self, kind: int, body: bytes) -> None:
        device = links.parse_link(body)
        if device is None:
            return
        if kind == links.RTM_NEWLINK:
            contradicted = self._table.learn(device)
        elif kind == links.RTM_DELLINK:
            contradicted = self._table.remove(device)
        else:
            return
        if contradicted is not None:
            self._ask(contradicted)

    def _ask(self, ifindex: int) -> None:
        """Read one device anew. One that is gone is left to its RTM_DELLINK, which is queued."""
        try:
            answer = self._requests.execute(links.RTM_GETLINK, links.link(ifindex))
        except OSError as error:
            if error.errno != errno.ENODEV:
                log.warning("device %s cannot be read (%s); trying again", ifindex, error)
                self._relist_later()
            return
        for device in map(links.parse_link, answer.bodies):
            if device:
                self._table.learn(device)

    def _announce_soon(self) -> None:
        if not self._announcing:
            self._announcing = True
            self._loop.call_later(COALESCE_SECONDS, self._announce)

    def _announce(self) -> None:
        self._announcing = False
        names = self._table.take_changed()
        if names and self._open:
            self.on_change(names)

    def _label(self, ifindex: int) -> str:
        device = self.by_index.get(ifindex)
        return device.name if device else f"device {ifindex}"

    async def user_end(self, far: int) -> Device | None:
        """The other end of veth `far`, wherever it is; None when it cannot be seen.

        In another namespace it is asked about now, and its ifindex and master are of there.
        """
        try:
            (body,) = self._requests.execute(links.RTM_GETLINK, links.link(far)).bodies
            device = links.parse_link(body)
            namespace = links.peer_namespace(body)
            if device is None or not device.peer:
                return None
            if namespace is None:
                return self.by_index.get(device.peer)
            there = links.link_elsewhere(device.peer, namespace)
            (body,) = self._requests.execute(links.RTM_GETLINK, there).bodies
            return links.parse_link(body)
        except NetlinkError:
            return None

    async def stats(self) -> dict[int, DeviceStats]:
        """Ifindex to 64-bit counters of every device, in one dump."""
        with _blaming("statistics of network devices"):
            answer = self._requests.execute(links.RTM_GETSTATS, links.every_stats(), NLM_F_DUMP)
        return dict(entry for entry in map(links.parse_stats, answer.bodies) if entry)

    async def link_info(self, ifindex: int) -> LinkInfo:
        """Speed, duplex and driver, asked of the driver now."""
        with _blaming(f"{self._label(ifindex)}: driver information"):
            fd = self._requests.fileno()
            return ethtool.link_info(fd, ethtool.device_name(fd, ifindex))

    # Changes

    def _change(self, kind: int, body: bytes, flags: int = 0) -> None:
        try:
            self._requests.execute(kind, body, flags)
        finally:
            self._drain()

    def _set(self, ifindex: int, what: str, *parts: bytes, flags: int = 0, change: int = 0) -> None:
        with _blaming(f"{self._label(ifindex)}: {what}"):
            self._change(links.RTM_SETLINK, links.link(ifindex, *parts, flags=flags, change=change))
        # Of a device that is down the kernel does not announce every change (an alias, say).
        self._ask(ifindex)

    async def set_mtu(self, ifindex: int, mtu: int) -> None:
        """Set the MTU in bytes."""
        device = self.by_index.get(ifindex)
        if device:
            _check_mtu(device.name, mtu, device.min_mtu, device.max_mtu or mtu)
        self._set(ifindex, f"set mtu {mtu}", u32(links.IFLA_MTU, mtu))

    async def set_mac(self, ifindex: int, mac: str) -> None:
        """Set the MAC address, six hex octets with colons."""
        octets = _mac_bytes(self._label(ifindex), mac)
        self._set(ifindex, f"set mac {mac}", attribute(links.IFLA_ADDRESS, octets))

    async def set_up(self, ifindex: int, up: bool) -> None:
        """Bring the device up or down."""
        flags = links.IFF_UP if up else 0
        self._set(ifindex, "set up" if up else "set down", flags=flags, change=links.IFF_UP)

    async def set_alias(self, ifindex: int, alias: str) -> None:
        """Set the alias, a text that goes with the device; "" removes it."""
        self._set(ifindex, "set alias", text(links.IFLA_IFALIAS, alias))

    async def set_offload(self, ifindex: int, tx: bool, tso: bool, gso: bool) -> None:
        """Have frames leave with checksums (`tx`) and segmentation left to the device, or not.

        On is a wish (the kernel allows no tso without tx); off that cannot be had is an error.
        """
        wanted = {"tx": (ethtool.TX, tx), "tso": (ethtool.TSO, tso), "gso": (ethtool.GSO, gso)}
        for word, (feature, on) in wanted.items():
            with _blaming(f"{self._label(ifindex)}: switch {word} offload {'on' if on else 'off'}"):
                fd = self._requests.fileno()
                name = ethtool.device_name(fd, ifindex)
                ethtool.put(fd, name, feature, on)
                if not on and ethtool.get(fd, name, feature):
                    raise HeliographError(f"{name}: the driver does not switch {word} offload off")
        self._drain()

    async def offloads(self, ifindex: int) -> tuple[bool, bool, bool]:
        """(tx, tso, gso) as `set_offload` has them."""
        with _blaming(f"{self._label(ifindex)}: read offloads"):
            fd = self._requests.fileno()
            name = ethtool.device_name(fd, ifindex)
            features = (ethtool.TX, ethtool.TSO, ethtool.GSO)
            tx, tso, gso = (bool(ethtool.get(fd, name, feature)) for feature in features)
            return tx, tso, gso

    # Internal ports

    async def create_internal(
        self, name: str, far_name: str, alias: str, mac: str | None, mtu: int | None
    ) -> tuple[Device, Device]:
        """Make a veth pair and return (user's end, our end); on any error nothing is left.

        `name` is the user's end, left down as an OVS internal port is; `far_name` our end:
        muted (no ARP, no IPv6) and up, of the largest MTU. Both carry `alias`. Without `mac`
        the kernel picks one, without `mtu` it is 1500.
        """
        _check_name(name)
        _check_name(far_name)
        octets = None if mac is None else _mac_bytes(name, mac)
        if mtu is not None:
            _check_mtu(name, mtu, links.VETH_MIN_MTU, links.VETH_MAX_MTU)
        body = links.veth_pair(name, far_name, octets, mtu)
        try:
            with _blaming(f"internal port {name}"):
                self._change(links.RTM_NEWLINK, body, NLM_F_CREATE | NLM_F_EXCL)
        except HeliographError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.EEXIST:
                raise HeliographError(self._who_has(name, far_name)) from error
            raise
        far = self.by_name.get(far_name)
        if far is None:
            raise HeliographError(f"internal port {name}: our end {far_name} vanished at once")
        try:
            with _blaming(f"internal port {name}: silence IPv6 on {far_name}"):
                mute_ipv6(far_name)
            await self.set_alias(far.peer, alias)
            alias_too = text(links.IFLA_IFALIAS, alias)
            self._set(far.ifindex, "set up", alias_too, flags=links.IFF_UP, change=links.IFF_UP)
            return self.by_index[far.peer], self.by_index[far.ifindex]
        except BaseException as error:
            with _blaming(f"internal port {name}: remove what was made of it"):
                self._remove([far.ifindex], self._requests)
            self._drain()
            if isinstance(error, KeyError):
                raise HeliographError(f"internal port {name}: vanished while made") from error
            raise

    def _who_has(self, name: str, far_name: str) -> str:
        for wanted in (name, far_name):
            holder = self.by_name.get(wanted)
            if holder:
                what = f"{holder.kind or 'hardware'} device, ifindex {holder.ifindex}"
                return (
                    f"internal port {name}: {wanted} exists already ({what}): "
                    f"delete it (ip link delete dev {wanted}), or give the port another name"
                )
        return f"internal port {name}: the name is an alternative name of another device"

    async def delete(self, *ifindexes: int) -> None:
        """Delete devices, and with each the other end of its pair; none to find is no error.

        One device takes the kernel some 15 ms, a thousand given at once 235 ms.
        """
        with _blaming(f"delete {', '.join(map(self._label, ifindexes))}"):
            # Not on the event loop, and on a socket of this thread's namespace.
            requests = RequestSocket()
            work = functools.partial(self._remove, ifindexes, requests, close=True)
            await asyncio.shield(self._loop.run_in_executor(None, work))
        self._drain()

    @staticmethod
    def _remove(ifindexes: Sequence[int], requests: RequestSocket, close: bool = False) -> None:
        """Delete what is there of the given devices, by way of a device group of their own."""
        group = u32(links.IFLA_GROUP, int.from_bytes(os.urandom(4), "big") | 1 << 31)
        try:
            for ifindex in ifindexes:
                _unless_gone(requests, links.RTM_SETLINK, links.link(ifindex, group))
            _unless_gone(requests, links.RTM_DELLINK, links.link(0, group))
        finally:
            if close:
                requests.close()

    # Existing devices

    def why_not(self, device: Device) -> str | None:
        """Why an existing device cannot become a port, and the mend; None when it can."""
        name = device.name
        if device.link_type == links.ARPHRD_LOOPBACK:
            return f"{name} is the loopback device: use a veth, tap or hardware device"
        if device.link_type != links.ARPHRD_ETHER:
            what = f" ({device.kind})" if device.kind else ""
            return f"{name}{what} carries no Ethernet frames: use a veth, tap or hardware device"
        if device.master:
            master = self.by_index.get(device.master)
            owner = f"{master.name} ({master.kind})" if master else "another device"
            return f"{name} belongs to {owner}: release it with ip link set dev {name} nomaster"
        partner = None if device.peer_elsewhere else self.by_index.get(device.peer)
        if is_far_end(device):
            its = partner.name if partner else "in another namespace"
            return f"{name} is the switch's own end of an internal port: use the user's end, {its}"
        if device.kind == "veth" and partner and is_far_end(partner):
            return f"{name} is an internal port of the switch: set type=internal for it"
        return None

    async def as_found(self, ifindex: int) -> Restore:
        """The record that `release` needs; write it down before `take`, for a crash between."""
        device = self.by_index.get(ifindex)
        if device is None:
            raise HeliographError(f"device {ifindex}: the device is gone")
        with _blaming(f"{device.name}: read large receive offload"):
            fd = self._requests.fileno()
            lro = ethtool.get_lro(fd, ethtool.device_name(fd, ifindex))
        return Restore(ifindex, device.name, device.mac, device.promiscuous, lro)

    async def take(self, ifindex: int) -> Restore:
        """Make a port of an existing device: promiscuous on, LRO off (merged frames cannot be
        forwarded). Its addresses, IPv6 and up or down stay the user's. Returns how it was."""
        found = await self.as_found(ifindex)
        try:
            self._put(found, promiscuous=True, lro=False)
        except HeliographError:
            self._put(found, promiscuous=found.promiscuous, lro=found.lro)
            raise
        return found

    async def release(self, restore: Restore) -> None:
        """Put a device back as it was found; one that is gone, or another now, is left alone."""
        self._drain()
        device = self.by_index.get(restore.ifindex)
        # An ifindex is given anew after a reboot, or to another device in another namespace.
        if device and (device.name == restore.name or device.mac == restore.mac):
            try:
                self._put(restore, restore.promiscuous, restore.lro)
            except HeliographError:
                self._drain()
                if restore.ifindex in self.by_index:
                    raise

    def _put(self, found: Restore, promiscuous: bool, lro: bool) -> None:
        flags = links.IFF_PROMISC if promiscuous else 0
        deed = f"set promiscuous {'on' if promiscuous else 'off'}"
        self._set(found.ifindex, deed, flags=flags, change=links.IFF_PROMISC)
        if found.lro:
            with _blaming(f"{self._label(found.ifindex)}: set LRO {'on' if lro else 'off'}"):
                fd = self._requests.fileno()
                ethtool.put_lro(fd, ethtool.device_name(fd, found.ifindex), lro)


def is_far_end(device: Device) -> bool:
    """Whether a device is our end of an internal port, by its name and kind."""
    return device.kind == "veth" and FAR_NAME.fullmatch(device.name) is not None
