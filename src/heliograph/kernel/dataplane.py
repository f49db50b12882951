# SPDX-License-Identifier: Apache-2.0
"""The data plane in the kernel: loaded, pinned, adopted, migrated, switched over, taken down.

Everything that must outlive a process is pinned below the bpffs::

    programs-SLOTS    the slots that the stubs tail-call, an array of that many
    sequences-PORTS   the next sequence number of each tunnel port
    instructions-SIZE what a program has to say to the next one of the same frame
    layout-DIGEST/    the maps whose layouts have that digest
    links/IFINDEX-in  and -out: a port's links, which hold the stubs; -tunnel: that of a device
                      on which tunnels receive (no dots: bpffs keeps names with dots for itself)

A start loads the object anew with the pinned maps of its own layout and swaps the slots (0 frames
lost, kernel facts, "Lifetime"); maps of another layout are carried over (migration.py), and their
folder goes when the new configuration is in force.
"""

import contextlib
import os
import shutil
import struct
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Self
from uuid import UUID

from heliograph.errors import EnvironmentFaultError
from heliograph.kernel import bpf, bpffs, layouts, migration, snapshot, tunnels
from heliograph.kernel.counters import Counters
from heliograph.kernel.fdb import Fdb
from heliograph.kernel.layouts import Limits, Slot
from heliograph.kernel.libbpf import Object

_FDB_MAPS = (
    "fdb fdb_order fdb_flaps fdb_learned fdb_removed fdb_port_learned fdb_port_removed"
).split()
_STATISTICS = "port_stats mirror_stats".split()
_MAPS = (
    "bridges devices rows records frames heads chunks underlay endpoints addresses "
    "super_seen outers envelopes flow_stores packet_ins"
).split()
_MAPS += _FDB_MAPS + _STATISTICS
# What is worth carrying from one layout into another, if its shape is the same; the rows and the
# flow stores at once, the others when the new configuration is about to be put in force.
_CARRIED = [*_FDB_MAPS, *_STATISTICS]

ROW_BRIDGES, ROW_PORTS = 0, int(Limits.MAX_BRIDGES)
ROW_MIRRORS = ROW_PORTS + Limits.MAX_PORTS
# A link's pin, program and hook, in the order of attaching.
_HOOKS = (
    ("out", "stub_egress", bpf.ATTACH_TCX_EGRESS),
    ("in", "stub_ingress", bpf.ATTACH_TCX_INGRESS),
)
_TUNNEL = "tunnel"
_SLOTS = {
    Slot.SLOT_INGRESS: "ingress",
    Slot.SLOT_EGRESS: "egress",
    Slot.SLOT_SEGMENTED: "segmented",
    Slot.SLOT_SEGMENTER: "segmenter",
    Slot.SLOT_TUNNELLED: "tunnelled",
}
# Maps that both versions use during an upgrade, by what must be equal of them: the number of
# entries, or the size of one.
_LASTING = {
    "programs": int(Slot.MAX_SLOTS),
    "sequences": int(Limits.MAX_PORTS),
    "instructions": layouts.INSTRUCTION_SIZE,
}
_CHUNK = 4096  # entries per system call
_NO_ROW = bytes(16)


def _key(number: int) -> bytes:
    return struct.pack("=I", number)


def home_namespace() -> int:
    """The inode number of this process's network namespace."""
    return Path("/proc/self/ns/net").stat().st_ino


class DataPlane:
    """Our programs and maps in the kernel. Made by `open`; `close` leaves them running.

    `adopted`: one was there already, of this layout or another.
    """

    def __init__(self, root: Path, loaded: Object, *, adopted: bool) -> None:
        self.name = str(root)
        self._root = root
        self.adopted = adopted
        self._object = loaded
        self._links = root / "links"
        self._carried = False
        self._attached = self._living_links()
        self._underlay: tunnels.UnderlayEntry | None = None
        self._maps = {name: loaded.map_fd(name) for name in (*_MAPS, *_LASTING)}
        self.counters = Counters.of(self._maps["port_stats"], self._maps["mirror_stats"])
        self.fdb = Fdb(self._maps)

    @classmethod
    def open(cls, root: Path) -> Self:
        """Load the data plane, adopting what is pinned below `root`, a bpffs.

        Frames meet the old programs until `take_over`. Raises EnvironmentFaultError when the
        kernel refuses, or when what is pinned works in another network namespace.
        """
        other = other_namespace(root)
        if other:
            raise EnvironmentFaultError(
                f"the data plane below {root} works in another network namespace ({other}): "
                "start there, or run helio teardown there first"
            )
        for path in root.glob("namespace-*"):
            path.rmdir()  # of a namespace that is gone, or ours
        (root / f"namespace-{home_namespace()}").mkdir()
        (root / "links").mkdir(exist_ok=True)
        loaded = Object(resources.files(__package__).joinpath("switch.bpf.o").read_bytes())
        loaded.set_constants(".rodata.home", _key(home_namespace()))
        adopted = any(root.glob("layout-*"))
        folder = root / f"layout-{layouts.LAYOUT}"
        pins = {name: folder / name for name in _MAPS}
        pins |= {name: root / f"{name}-{entries}" for name, entries in _LASTING.items()}
        opened = {name: bpf.get(path) for name, path in pins.items() if path.exists()}
        try:
            loaded.load(opened)
        finally:
            for fd in opened.values():
                os.close(fd)
        folder.mkdir(exist_ok=True)
        for name in pins.keys() - opened.keys():
            bpf.pin(loaded.map_fd(name), pins[name])
        if not (folder / migration.NAMES).exists():
            migration.pin_names(folder)
        plane = cls(root, loaded, adopted=adopted)
        plane._carry("rows")
        plane._carry_stores()
        return plane

    def carry_over(self) -> None:
        """Take the MAC table and the counters over from maps of another layout, once.

        For just before the first change of this configuration: what the old programs count from
        then until `take_over` is lost.
        """
        if not self._carried:
            for name in _CARRIED:
                self._carry(name)
            self.fdb.recount()
            self._carried = True

    def _carry(self, name: str) -> None:
        for old in self._root.glob(f"layout-*/{name}"):
            if old.parent.name != f"layout-{layouts.LAYOUT}":
                migration.carry(old.parent, name, self._maps[name])

    def _carry_stores(self) -> None:
        for old in self._root.glob(f"layout-*/{migration.STORES}"):
            if old.parent.name != f"layout-{layouts.LAYOUT}":
                bridges, stores = self._maps["bridges"], self._maps[migration.STORES]
                migration.carry_stores(old.parent, bridges, stores)

    def take_over(self) -> None:
        """Put these programs into the slots: from now on frames meet them. Idempotent.

        Links that an earlier version made have its array, perhaps one of fewer slots.
        """
        for array in self._root.glob("programs*"):
            fd = bpf.get(array)
            try:
                _, _, _, slots = bpf.map_shape(fd)
                for slot, name in _SLOTS.items():
                    if slot < slots:
                        bpf.update(fd, _key(slot), _key(self._object.program_fd(name)))
            finally:
                os.close(fd)
        for old in self._root.glob("layout-*"):
            if old.name != f"layout-{layouts.LAYOUT}":
                shutil.rmtree(old)

    def close(self) -> None:
        """Let go; what is pinned goes on."""
        self._object.close()

    # Rows: whose a slot is.

    def rows(self, first: int, count: int) -> dict[int, UUID]:
        """The slots in use among `count` from `first` (ROW_...), with their row's UUID."""
        return read_rows(self._maps["rows"], first, count)

    def set_row(self, index: int, row: UUID | None) -> None:
        """Say whose a slot is, or that it is free."""
        bpf.update(self._maps["rows"], _key(index), row.bytes if row else _NO_ROW)

    # Bridges.

    def switch_over(self, bridge: snapshot.BridgeEntry) -> None:
        """Put a bridge's configuration in force: when this returns no frame meets the old one."""
        fresh = bpf.create_array(layouts.SNAPSHOT_SIZE, 1, "snapshot")
        try:
            bpf.update(fresh, _key(0), snapshot.pack(bridge))
            bpf.update(self._maps["bridges"], _key(bridge.slot), _key(fresh))
        finally:
            os.close(fresh)

    def clear_bridge(self, slot: int) -> None:
        """Forget a bridge and its flow tables: its ports drop what comes in."""
        bpf.delete(self._maps["bridges"], _key(slot))
        for store in (2 * slot, 2 * slot + 1):
            bpf.delete(self._maps["flow_stores"], _key(store))

    # Tunnels.

    def put_underlay(self, underlay: tunnels.UnderlayEntry) -> None:
        """Put the tunnel ports and their ways in force; nothing if they are."""
        if underlay == self._underlay:
            return
        fresh = bpf.create_array(layouts.UNDERLAY_SIZE, 1, "underlay")
        try:
            bpf.update(fresh, _key(0), tunnels.pack(underlay))
            bpf.update(self._maps["underlay"], _key(0), _key(fresh))
        finally:
            os.close(fresh)
        endpoints, addresses = tunnels.endpoints(underlay), tunnels.addresses(underlay)
        self._put_all("addresses", (layouts.OWN_ADDRESS.size, 4), addresses)
        self._put_all("endpoints", (layouts.ENDPOINT.size, layouts.DEVICE.size), endpoints)
        self._underlay = underlay

    @property
    def underlay(self) -> tunnels.UnderlayEntry | None:
        """The tunnel ports and ways in force; None if an earlier process put them there."""
        return self._underlay

    def _put_all(self, name: str, sizes: tuple[int, int], wanted: Mapping[bytes, bytes]) -> None:
        """Have these entries in a hash map, and no others."""
        table = self._maps[name]
        there = dict(bpf.items(table, *sizes, chunk=_CHUNK))
        for key in there.keys() - wanted.keys():
            bpf.delete(table, key)
        for key, port in wanted.items():
            if there.get(key) != port:
                bpf.update(table, key, port)

    def restart_sequence(self, port: int) -> None:
        """Have the sequence numbers of a tunnel port begin at 0 (rules 109 and 114)."""
        bpf.update(self._maps["sequences"], _key(port), _key(0))

    def receivers(self) -> frozenset[int]:
        """The devices on which tunnels receive."""
        return frozenset(int(p.name.split("-")[0]) for p in self._links.glob(f"*-{_TUNNEL}"))

    def attach_receiver(self, ifindex: int) -> None:
        """Have tunnels receive on a device; nothing if they do. OSError as the kernel says it."""
        self._forget_dead_link(ifindex, _TUNNEL)
        self._link(ifindex, _TUNNEL, "stub_tunnelled", bpf.ATTACH_TCX_INGRESS)

    def detach_receiver(self, ifindex: int) -> None:
        """The host has all that comes in there."""
        (self._links / f"{ifindex}-{_TUNNEL}").unlink(missing_ok=True)

    # Devices.

    def devices(self) -> dict[int, tuple[int, int]]:
        """(bridge slot, port number) by ifindex."""
        found = {}
        for key, value in bpf.items(self._maps["devices"], 4, layouts.DEVICE.size):
            device = layouts.Device.unpack(value)
            found[struct.unpack("=I", key)[0]] = (device.bridge, device.port)
        return found

    def set_device(self, ifindex: int, bridge: int, port: int) -> None:
        """Say whose port a device is."""
        bpf.update(self._maps["devices"], _key(ifindex), layouts.Device(bridge, port).pack())

    def forget_device(self, ifindex: int) -> None:
        """The device is no port any more."""
        bpf.delete(self._maps["devices"], _key(ifindex))

    def attached(self) -> frozenset[int]:
        """The devices that have some link of a port's pinned."""
        return frozenset(self._attached) | {
            int(path.name.split("-")[0])
            for path in self._links.iterdir()
            if not path.name.endswith(_TUNNEL)
        }

    def _living_links(self) -> set[int]:
        """The devices that have both links pinned. Pins of links whose device is gone are
        removed."""
        found: Counter[int] = Counter()
        for path in list(self._links.iterdir()):
            ifindex = int(path.name.split("-")[0])
            if _on_device(path, ifindex):
                found[ifindex] += not path.name.endswith(_TUNNEL)
            else:
                path.unlink()
        return {ifindex for ifindex, links in found.items() if links == len(_HOOKS)}

    def forget_dead_links(self, ifindex: int) -> None:
        """Remove the pins of links whose device is gone: another may have its number now."""
        for suffix, _, _ in _HOOKS:
            if self._forget_dead_link(ifindex, suffix):
                self._attached.discard(ifindex)

    def _forget_dead_link(self, ifindex: int, suffix: str) -> bool:
        path = self._links / f"{ifindex}-{suffix}"
        dead = path.exists() and not _on_device(path, ifindex)
        if dead:
            path.unlink()
        return dead

    def attach(self, ifindex: int) -> None:
        """Link the stubs to a device; nothing if they are. OSError as the kernel says it."""
        if ifindex in self._attached:
            return
        for suffix, program, hook in _HOOKS:
            self._link(ifindex, suffix, program, hook)
        self._attached.add(ifindex)

    def attach_segmenter(self, near: int, far: int) -> None:
        """Link the two ends of the segmenter (bpf/segment.h); nothing if they are."""
        self._forget_dead_link(near, "out")
        self._forget_dead_link(far, "in")
        self._link(near, "out", "stub_segmenter", bpf.ATTACH_TCX_EGRESS)
        self._link(far, "in", "stub_segmented", bpf.ATTACH_TCX_INGRESS)
        self._attached |= {near, far}

    def _link(self, ifindex: int, suffix: str, program: str, hook: int) -> None:
        path = self._links / f"{ifindex}-{suffix}"
        if path.exists():
            return
        link = bpf.attach_tcx(self._object.program_fd(program), ifindex, hook)
        try:
            bpf.pin(link, path)
        finally:
            os.close(link)

    def detach(self, ifindex: int) -> None:
        """Take the stubs off a device: it is the host's again."""
        self._attached.discard(ifindex)
        for suffix, _, _ in reversed(_HOOKS):
            (self._links / f"{ifindex}-{suffix}").unlink(missing_ok=True)

    def map_fd(self, name: str) -> int:
        """File descriptor of one of our maps."""
        return self._maps[name]

    def program_fd(self, name: str) -> int:
        """File descriptor of one of our programs."""
        return self._object.program_fd(name)


def _on_device(path: Path, ifindex: int) -> bool:
    """Whether a pinned link is on a device of that number still."""
    link = bpf.get(path)
    try:
        return bpf.link_ifindex(link) == ifindex
    finally:
        os.close(link)


def read_rows(rows_fd: int, first: int, count: int) -> dict[int, UUID]:
    """`DataPlane.rows` of a map opened otherwise."""
    found = {}
    for key, value in bpf.items(rows_fd, 4, 16):
        number = struct.unpack("=I", key)[0] - first
        if 0 <= number < count and value != _NO_ROW:
            found[number] = UUID(bytes=value)
    return found


def linked_devices(root: Path) -> set[int]:
    """The devices that links pinned below `root` were made for, also without a data plane."""
    if not bpffs.is_mounted(root):
        return set()
    return {int(path.name.split("-")[0]) for path in (root / "links").glob("*-*")}


def other_namespace(root: Path) -> str | None:
    """The name of the namespace (namespace-INODE) the data plane works in, if it is not ours and
    there still is one."""
    for path in root.glob("namespace-*"):
        inode = int(path.name.split("-")[1])
        if inode != home_namespace() and _namespace_lives(inode):
            return path.name
    return None


def _namespace_lives(inode: int) -> bool:
    """Whether a network namespace has a process or a name that we can see."""
    link = f"net:[{inode}]"
    if f" {link} " in Path("/proc/self/mountinfo").read_text():
        return True
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            if str((process / "ns/net").readlink()) == link:
                return True
    return False
