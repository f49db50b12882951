# SPDX-License-Identifier: Apache-2.0
"""Reading BTF, the kernel's type format, out of an eBPF object (kernel Documentation, bpf/btf)."""

import struct
from dataclasses import dataclass
from typing import TypeAlias

INT, PTR, ARRAY, STRUCT, UNION, ENUM = 1, 2, 3, 4, 5, 6
TYPEDEF, VOLATILE, CONST = 8, 9, 10
FUNC_PROTO, VAR, DATASEC, DECL_TAG, ENUM64 = 13, 14, 15, 17, 19

# What follows a type's 12 bytes of header: so much once, or for each of its members.
_TAIL = {INT: 4, ARRAY: 12, VAR: 4, DECL_TAG: 4}
_TAIL_EACH = {STRUCT: 12, UNION: 12, ENUM: 8, FUNC_PROTO: 8, DATASEC: 12, ENUM64: 12}


@dataclass(frozen=True, slots=True)
class Scalar:
    """An unsigned integer of `size` bytes."""

    size: int


@dataclass(frozen=True, slots=True)
class Array:
    """`count` elements of one type."""

    element: "Type"
    count: int


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct: its fields as (name, type, offset in bytes)."""

    name: str
    size: int
    fields: "tuple[tuple[str, Type, int], ...]"


Type: TypeAlias = Scalar | Array | Struct


@dataclass(frozen=True, slots=True)
class _Raw:
    kind: int
    name: str
    size: int  # or the number of the type referred to
    members: int
    tail: bytes


class Btf:
    """The types in a .BTF section; ValueError if it is none."""

    def __init__(self, section: bytes) -> None:
        magic, _, _, header, types, length, strings, _ = struct.unpack_from("<HBBIIIII", section)
        if magic != 0xEB9F:
            raise ValueError("not a .BTF section")
        self._strings = section[header + strings :]
        self._types = [_Raw(0, "void", 0, 0, b"")]
        position, end = header + types, header + types + length
        while position < end:
            name, info, size = struct.unpack_from("<III", section, position)
            kind, members = info >> 24 & 0x1F, info & 0xFFFF
            tail = _TAIL.get(kind, 0) + _TAIL_EACH.get(kind, 0) * members
            body = section[position + 12 : position + 12 + tail]
            self._types.append(_Raw(kind, self._text(name), size, members, body))
            position += 12 + tail

    def _text(self, offset: int) -> str:
        return self._strings[offset : self._strings.index(b"\0", offset)].decode()

    def _resolve(self, number: int) -> Type:
        raw = self._types[number]
        if raw.kind in (TYPEDEF, VOLATILE, CONST):
            return self._resolve(raw.size)
        if raw.kind in (INT, ENUM):
            return Scalar(raw.size)
        if raw.kind == ARRAY:
            element, _, count = struct.unpack("<III", raw.tail)
            return Array(self._resolve(element), count)
        if raw.kind == STRUCT:
            fields = struct.iter_unpack("<III", raw.tail)
            resolved = ((self._text(n), self._resolve(t), bits // 8) for n, t, bits in fields)
            return Struct(raw.name, raw.size, tuple(resolved))
        raise ValueError(f"BTF type {number} ({raw.name}) is of kind {raw.kind}: not for Python")

    def struct(self, name: str) -> Struct:
        """The struct of that name; KeyError if there is none."""
        for number, raw in enumerate(self._types):
            if raw.kind == STRUCT and raw.name == name:
                found = self._resolve(number)
                assert isinstance(found, Struct)
                return found
        raise KeyError(name)

    def enum(self, name: str) -> dict[str, int]:
        """The constants of the enum of that name; KeyError if there is none."""
        for raw in self._types:
            if raw.kind == ENUM and raw.name == name:
                pairs = struct.iter_unpack("<Ii", raw.tail)
                return {self._text(offset): value for offset, value in pairs}
        raise KeyError(name)
