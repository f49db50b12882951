# SPDX-License-Identifier: Apache-2.0
"""Opening and loading an eBPF object through the distribution's libbpf.so.1, by ctypes.

Only opaque pointers and file descriptors cross the boundary: no struct of libbpf's is typed by
hand here, and no callback is handed in (design, "Dependencies": both crashed).
"""

import ctypes
import os
from collections.abc import Mapping
from typing import Self

from heliograph.errors import EnvironmentFaultError, HeliographError

_POINTER = ctypes.c_void_p
_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "bpf_object__open_mem": (_POINTER, [ctypes.c_char_p, ctypes.c_size_t, _POINTER]),
    "bpf_object__load": (ctypes.c_int, [_POINTER]),
    "bpf_object__close": (None, [_POINTER]),
    "bpf_object__find_map_by_name": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "bpf_object__find_program_by_name": (_POINTER, [_POINTER, ctypes.c_char_p]),
    "bpf_object__next_map": (_POINTER, [_POINTER, _POINTER]),
    "bpf_map__name": (ctypes.c_char_p, [_POINTER]),
    "bpf_map__fd": (ctypes.c_int, [_POINTER]),
    "bpf_map__reuse_fd": (ctypes.c_int, [_POINTER, ctypes.c_int]),
    "bpf_map__set_initial_value": (ctypes.c_int, [_POINTER, ctypes.c_char_p, ctypes.c_size_t]),
    "bpf_program__fd": (ctypes.c_int, [_POINTER]),
    "bpf_program__set_log_level": (ctypes.c_int, [_POINTER, ctypes.c_uint32]),
    "libbpf_set_print": (_POINTER, [_POINTER]),
}


def library() -> ctypes.CDLL:
    """libbpf.so.1, with every function that we call typed.

    Raises EnvironmentFaultError if it is not installed.
    """
    try:
        loaded = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise EnvironmentFaultError(
            f"libbpf.so.1 cannot be loaded ({error}): install the package libbpf1"
        ) from error
    for name, (result, arguments) in _PROTOTYPES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    return loaded


class Object:
    """An eBPF object file, opened, then loaded: its maps and programs by name.

    The file descriptors it hands out are its own and end with `close`; duplicate to keep.
    """

    def __init__(self, image: bytes) -> None:
        self._library = library()
        if not os.environ.get("HELIOGRAPH_LIBBPF_DEBUG"):
            self._library.libbpf_set_print(None)
        self._handle = self._library.bpf_object__open_mem(image, len(image), None)
        if not self._handle:
            raise HeliographError("the eBPF object cannot be opened: " + self._why())

    def _why(self) -> str:
        return os.strerror(ctypes.get_errno())

    def _map(self, name: str) -> int:
        found: int | None = self._library.bpf_object__find_map_by_name(self._handle, name.encode())
        if not found:
            raise KeyError(name)
        return found

    def map_names(self) -> list[str]:
        """Maps of the object, those of constants included."""
        names, current = [], None
        while current := self._library.bpf_object__next_map(self._handle, current):
            names.append(self._library.bpf_map__name(current).decode())
        return names

    def set_constants(self, section: str, value: bytes) -> None:
        """Give the constants of `section` (".rodata") their values; before `load`."""
        for name in self.map_names():
            if name.endswith(section):
                if self._library.bpf_map__set_initial_value(self._map(name), value, len(value)):
                    raise HeliographError(f"the constants of {name} cannot be set: {self._why()}")
                return
        raise KeyError(section)

    def load(self, reuse: Mapping[str, int]) -> None:
        """Verify and load it, with the maps of `reuse` (file descriptors by name) as they are.

        Raises EnvironmentFaultError with the kernel's word if it refuses.
        """
        for name, fd in reuse.items():
            if self._library.bpf_map__reuse_fd(self._map(name), fd):
                raise HeliographError(f"the pinned map {name} cannot be taken over: {self._why()}")
        error = self._library.bpf_object__load(self._handle)
        if error:
            raise EnvironmentFaultError(
                f"the kernel refuses the data plane ({os.strerror(-error)}): Linux 6.6 or later "
                "with BTF, CAP_BPF and CAP_NET_ADMIN are needed; HELIOGRAPH_LIBBPF_DEBUG=1 shows "
                "the verifier's log"
            )

    def map_fd(self, name: str) -> int:
        """File descriptor of a loaded map; KeyError if there is none of the name."""
        return int(self._library.bpf_map__fd(self._map(name)))

    def program_fd(self, name: str) -> int:
        """File descriptor of a loaded program; KeyError if there is none of the name."""
        found = self._library.bpf_object__find_program_by_name(self._handle, name.encode())
        if not found:
            raise KeyError(name)
        return int(self._library.bpf_program__fd(found))

    def close(self) -> None:
        """Let go of everything that is not pinned, linked or duplicated."""
        if self._handle:
            self._library.bpf_object__close(self._handle)
            self._handle = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
