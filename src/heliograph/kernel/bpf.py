# SPDX-License-Identifier: Apache-2.0
"""The bpf(2) system call: maps, links, pins and test runs, as thin as it goes.

File descriptors are plain ints that the caller owns. Every function raises OSError as the kernel
says it. Layouts of ``union bpf_attr`` are from linux/bpf.h; a shorter attribute than the running
kernel knows is read by it as zero-filled, so each struct ends where our use of it ends.
"""

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

MAP_CREATE = 0
MAP_LOOKUP_ELEM = 1
MAP_UPDATE_ELEM = 2
MAP_DELETE_ELEM = 3
OBJ_PIN = 6
OBJ_GET = 7
PROG_TEST_RUN = 10
MAP_GET_FD_BY_ID = 14
OBJ_GET_INFO_BY_FD = 15
MAP_LOOKUP_BATCH = 24
MAP_DELETE_BATCH = 27
LINK_CREATE = 28

MAP_TYPE_ARRAY = 2
READ_ONLY = 1 << 3
MAPPABLE = 1 << 10
INNER_MAP = 1 << 12

ATTACH_TCX_INGRESS = 46
ATTACH_TCX_EGRESS = 47

SYS_BPF = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.syscall.argtypes = [ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_uint]


def _call(command: int, attribute: "ctypes.Array[ctypes.c_char]") -> int:
    number = SYS_BPF[platform.machine()]
    result: int = _libc.syscall(number, command, attribute, len(attribute))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def _attribute(layout: str, *values: int) -> "ctypes.Array[ctypes.c_char]":
    packed = struct.pack("=" + layout, *values)
    return ctypes.create_string_buffer(packed, len(packed))


def _address(buffer: "ctypes.Array[ctypes.c_char]") -> int:
    return ctypes.addressof(buffer)


def _buffer(data: bytes) -> "ctypes.Array[ctypes.c_char]":
    return ctypes.create_string_buffer(data, len(data))


def cpu_count() -> int:
    """CPUs that a per-CPU map has values for: the possible ones, not those online."""
    return count_cpus(Path("/sys/devices/system/cpu/possible").read_text())


def count_cpus(ranges: str) -> int:
    """How many there are in a list such as "0-3,8": numbers may be left out (cputopology)."""
    ends = [part.split("-") for part in ranges.strip().split(",")]
    return sum(int(numbers[-1]) - int(numbers[0]) + 1 for numbers in ends)


def create_array(value_size: int, entries: int, name: str) -> int:
    """Make an array map; returns its file descriptor."""
    attribute = _attribute(
        "IIIIIIIQQ",
        MAP_TYPE_ARRAY,
        4,
        value_size,
        entries,
        0,
        0,
        0,
        *struct.unpack("=QQ", name.encode()[:15].ljust(16, b"\0")),
    )
    return _call(MAP_CREATE, attribute)


def update(map_fd: int, key: bytes, value: bytes, flags: int = 0) -> None:
    """Set one element."""
    keys, values = _buffer(key), _buffer(value)
    _call(MAP_UPDATE_ELEM, _attribute("IIQQQ", map_fd, 0, _address(keys), _address(values), flags))


def lookup(map_fd: int, key: bytes, size: int) -> bytes | None:
    """One element of `size` bytes (of a per-CPU map: of all CPUs), or None."""
    keys, values = _buffer(key), ctypes.create_string_buffer(size)
    try:
        _call(MAP_LOOKUP_ELEM, _attribute("IIQQQ", map_fd, 0, _address(keys), _address(values), 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return values.raw


def delete(map_fd: int, key: bytes) -> bool:
    """Remove one element; returns whether it was there."""
    keys = _buffer(key)
    try:
        _call(MAP_DELETE_ELEM, _attribute("IIQQQ", map_fd, 0, _address(keys), 0, 0))
    except OSError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def _batches(
    map_fd: int, key_size: int, value_size: int, chunk: int
) -> Iterator[tuple[int, bytes, bytes]]:
    keys = ctypes.create_string_buffer(chunk * key_size)
    values = ctypes.create_string_buffer(chunk * value_size)
    # A hash map's cursor is a bucket number; an array's is a key. Both fit the larger of the two.
    cursor = ctypes.create_string_buffer(max(key_size, 4))
    first = True
    while True:
        attribute = _attribute(
            "QQQQIIQQ",
            0 if first else _address(cursor),
            _address(cursor),
            _address(keys),
            _address(values),
            chunk,
            map_fd,
            0,
            0,
        )
        done = False
        try:
            _call(MAP_LOOKUP_BATCH, attribute)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            done = True
        count = struct.unpack_from("=I", attribute.raw, 32)[0]
        yield count, keys.raw, values.raw
        if done:
            return
        first = False


def items(
    map_fd: int, key_size: int, value_size: int, *, chunk: int = 4096
) -> Iterator[tuple[bytes, bytes]]:
    """Every (key, value) by LOOKUP_BATCH: 120,000 in 33 ms (kernel facts, "MAC table").

    `value_size` of a per-CPU map is that of all CPUs. A chunk must hold the fullest bucket.
    """
    for count, keys, values in _batches(map_fd, key_size, value_size, chunk):
        for index in range(count):
            yield (
                keys[index * key_size : (index + 1) * key_size],
                values[index * value_size : (index + 1) * value_size],
            )


def delete_batch(map_fd: int, keys: Sequence[bytes]) -> int:
    """Remove elements; returns how many were removed before one was missing, or all."""
    if not keys:
        return 0
    packed = _buffer(b"".join(keys))
    attribute = _attribute("QQQQIIQQ", 0, 0, _address(packed), 0, len(keys), map_fd, 0, 0)
    try:
        _call(MAP_DELETE_BATCH, attribute)
    except OSError as error:
        if error.errno != errno.ENOENT:
            raise
    return int(struct.unpack_from("=I", attribute.raw, 32)[0])


def pin(fd: int, path: Path) -> None:
    """Give an object a name in a bpffs, which keeps it alive."""
    name = _buffer(os.fsencode(path) + b"\0")
    _call(OBJ_PIN, _attribute("QII", _address(name), fd, 0))


def get(path: Path, flags: int = 0) -> int:
    """Open a pinned object; returns a file descriptor."""
    name = _buffer(os.fsencode(path) + b"\0")
    return _call(OBJ_GET, _attribute("QII", _address(name), 0, flags))


def attach_tcx(program_fd: int, ifindex: int, attach_type: int) -> int:
    """Link a program to a device's tcx hook; returns the link's file descriptor."""
    return _call(LINK_CREATE, _attribute("IIIIIIQ", program_fd, ifindex, attach_type, 0, 0, 0, 0))


def map_shape(map_fd: int) -> tuple[int, int, int, int]:
    """(type, key size, value size, maximum of entries) of a map."""
    info = ctypes.create_string_buffer(24)
    _call(OBJ_GET_INFO_BY_FD, _attribute("IIQ", map_fd, len(info), _address(info)))
    kind, _, keys, values, entries, _ = struct.unpack("=IIIIII", info.raw)
    return kind, keys, values, entries


def link_ifindex(link_fd: int) -> int:
    """The device that a tcx link is on; 0 if that is gone."""
    info = ctypes.create_string_buffer(24)
    _call(OBJ_GET_INFO_BY_FD, _attribute("IIQ", link_fd, len(info), _address(info)))
    return int(struct.unpack_from("=I", info.raw, 16)[0])


def test_run(program_fd: int, frame: bytes, context: bytes, repeat: int = 1) -> tuple[int, int]:
    """Run a tc program on `frame` (BPF_PROG_TEST_RUN); returns (verdict, ns per run).

    `context` is a `struct __sk_buff`, of which the kernel takes mark, priority, ifindex and cb.
    """
    data, ctx = _buffer(frame), _buffer(context)
    out = ctypes.create_string_buffer(len(frame) + 1024)
    attribute = _attribute(
        "IIIIQQIIIIQQIII",
        program_fd,
        0,
        len(frame),
        len(out),
        _address(data),
        _address(out),
        repeat,
        0,
        len(context),
        0,
        _address(ctx),
        0,
        0,
        0,
        0,
    )
    _call(PROG_TEST_RUN, attribute)
    verdict, duration = struct.unpack_from("=I28xI", attribute.raw, 4)
    return verdict, duration


def create_shared_array(value_size: int, entries: int, name: str) -> int:
    """Make an array map that can be mapped into memory, and be an inner map among others of another
    size; returns its file descriptor."""
    flags = MAPPABLE | INNER_MAP
    shape = MAP_TYPE_ARRAY, 4, value_size, entries, flags, 0, 0
    words = struct.unpack("=QQ", name.encode()[:15].ljust(16, b"\0"))
    return _call(MAP_CREATE, _attribute("IIIIIIIQQ", *shape, *words))


def get_by_id(map_id: int) -> int:
    """Open a map; returns a file descriptor."""
    return _call(MAP_GET_FD_BY_ID, _attribute("III", map_id, 0, 0))
