# SPDX-License-Identifier: Apache-2.0
"""Compiles the data plane and generates its layouts for Python: `make bpf`.

Both results are committed, so that installing never compiles. The compiler is ziglang from PyPI
in one fixed version, so the same sources give the same bytes everywhere; a test compares.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import ziglang
from tools.btf import Btf
from tools.elf import sections, strip_debug
from tools.layouts import generate

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCES = REPOSITORY / "bpf"
KERNEL = REPOSITORY / "src" / "heliograph" / "kernel"
HEADERS = Path(ziglang.__file__).parent / "lib" / "libc" / "include"

FLAGS = [
    "-target",
    "bpfel-freestanding",
    "-mcpu=v3",
    "-O2",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-Wno-unused-parameter",
    "-fno-sanitize=all",
    "-fno-unwind-tables",
    "-fno-asynchronous-unwind-tables",
]


def compile_object() -> bytes:
    """The data plane's object, without debugging information but with BTF."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "switch.bpf.o"
        command = [
            *(sys.executable, "-m", "ziglang", "cc", *FLAGS),
            f"-ffile-prefix-map={SOURCES}=bpf",
            *("-isystem", str(HEADERS / "any-linux-any")),
            *("-isystem", str(HEADERS / "x86_64-linux-any")),
            *("-c", "switch.bpf.c", "-o", str(target)),
        ]
        subprocess.run(command, cwd=SOURCES, check=True)
        return strip_debug(target.read_bytes())


def reasons() -> tuple[dict[str, str], list[str]]:
    """The words of every drop reason by its key in the statistics columns, and the names of
    those that are counted on the port a frame came in by."""
    text = (SOURCES / "reasons.h").read_text()
    frame = text[text.index("FRAME_REASONS(X)") : text.index("#define OUTPUT_REASONS(X)")]
    words = re.findall(r'^\s*X\(\w+, (\w+),\s*"([^"]*)"\)', text, re.MULTILINE)
    return dict(words), re.findall(r"^\s*X\((\w+),", frame, re.MULTILINE)


def build() -> dict[Path, bytes]:
    """Every generated file with its content."""
    image = compile_object()
    btf = Btf(next(s.data for s in sections(image) if s.name == ".BTF"))
    return {
        KERNEL / "switch.bpf.o": image,
        KERNEL / "layouts.py": generate(btf, *reasons()).encode(),
    }


if __name__ == "__main__":
    for path, content in build().items():
        path.write_bytes(content)
