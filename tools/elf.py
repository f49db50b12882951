# SPDX-License-Identifier: Apache-2.0
"""As much of ELF64, little-endian, as the eBPF object needs (System V ABI, chapter 4)."""

import struct
from dataclasses import dataclass, replace

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SHT_NULL, _SHT_NOBITS = 0, 8


@dataclass(frozen=True, slots=True)
class Section:
    """One section: its name, the ten words of its header, its bytes."""

    name: str
    header: tuple[int, ...]
    data: bytes


def sections(image: bytes) -> list[Section]:
    """All sections of an object, in order."""
    header = _HEADER.unpack_from(image)
    offset, count, names = header[6], header[12], header[13]
    headers = [_SECTION.unpack_from(image, offset + number * 64) for number in range(count)]
    strings = headers[names][4]
    found = []
    for words in headers:
        start = strings + words[0]
        name = image[start : image.index(b"\0", start)].decode()
        data = b"" if words[1] == _SHT_NOBITS else image[words[4] : words[4] + words[5]]
        found.append(Section(name, words, data))
    return found


def strip_debug(image: bytes) -> bytes:
    """The object without its DWARF; BTF stays. Sections keep their numbers, as null sections."""

    def kept(section: Section) -> Section:
        if ".debug_" not in section.name and section.name != ".llvm_addrsig":
            return section
        header = (section.header[0], _SHT_NULL, *(0,) * 8)
        return replace(section, header=header, data=b"")

    parts, headers, position = [], [], 64
    for section in map(kept, sections(image)):
        words = list(section.header)
        padding = -position % max(words[8], 1)
        parts.append(b"\0" * padding + section.data)
        words[4] = position + padding
        position += padding + len(section.data)
        headers.append(_SECTION.pack(*words))
    padding = -position % 8
    elf = list(_HEADER.unpack_from(image))
    elf[6] = position + padding
    return _HEADER.pack(*elf) + b"".join(parts) + b"\0" * padding + b"".join(headers)
