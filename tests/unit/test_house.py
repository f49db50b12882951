# SPDX-License-Identifier: Apache-2.0
"""The rules of the house: ceilings, licence lines, names, and what must not be written down."""

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHON_FILE, PYTHON_FUNCTION = 500, 60  # lines
BPF_HEADER, BPF_FUNCTION = 350, 100
PYTHON_LICENCE = "SPDX-License-Identifier: Apache-2.0"
BPF_LICENCE = "SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause"

# Written so that this file does not contain what it forbids.
MACHINE_PATHS = re.compile(r"(?<![\w.])/(w" + "ork|ro" + "ot|f" + "arm)/")
REGISTRY_HOSTS = re.compile(r"(pypi\." + r"org|python" + r"hosted|deb\.debian\." + r"org)")
SKIPS = re.compile(r"\b(pytest\.(mark\.)?|mark\.)(skip|xfail|importor)" + r"\w*|unittest\.skip")


@cache
def files() -> tuple[Path, ...]:
    """What the repository holds or would hold: everything that git does not ignore."""
    # A clone may belong to another user than the one who runs the tests.
    words = ["git", "-c", "safe.directory=*", "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return tuple(ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file())


def text_files() -> Iterator[tuple[Path, str]]:
    for path in files():
        try:
            yield path.relative_to(ROOT), path.read_text()
        except UnicodeDecodeError:
            assert path.suffix == ".o", f"{path} is neither text nor a compiled object"


def python_files() -> Iterator[tuple[Path, str]]:
    return ((path, text) for path, text in text_files() if path.suffix == ".py")


def bpf_files() -> Iterator[tuple[Path, str]]:
    return ((path, text) for path, text in text_files() if path.parts[0] == "bpf")


def is_generated(text: str) -> bool:
    """Whether a program wrote the file; its second line says so."""
    return any("generated" in line.lower() for line in text.splitlines()[1:3])


def statements(node: ast.AST) -> Iterator[ast.AST]:
    """It and what is below it, but for expressions, which are most of a program."""
    yield node
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield from statements(child)


def long_python_functions(text: str) -> list[str]:
    return [
        f"{node.name}: {lines}"
        for node in statements(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > PYTHON_FUNCTION
    ]


def long_c_functions(text: str) -> list[str]:
    """Functions of C as clang-format lays them out: the body's braces in the first column."""
    found, start = [], 0
    for number, line in enumerate(text.splitlines(), 1):
        if line == "{" or (line.endswith(") {") and not line[0].isspace()):
            start = number
        elif line == "}" and start:
            if number - start + 1 > BPF_FUNCTION:
                found.append(f"line {start}: {number - start + 1}")
            start = 0
    return found


def test_python_files_stay_below_the_ceiling() -> None:
    lengths = {
        str(path): len(text.splitlines()) for path, text in python_files() if not is_generated(text)
    }
    assert lengths, "git lists no Python file"
    assert {path: n for path, n in lengths.items() if n > PYTHON_FILE} == {}


def test_python_functions_stay_below_the_ceiling() -> None:
    found = {str(path): long_python_functions(text) for path, text in python_files()}
    assert {path: names for path, names in found.items() if names} == {}


def test_bpf_headers_and_functions_stay_below_the_ceiling() -> None:
    sources = dict(bpf_files())
    assert {str(p): n for p, t in sources.items() if (n := len(t.splitlines())) > BPF_HEADER} == {}
    assert {str(p): names for p, t in sources.items() if (names := long_c_functions(t))} == {}


def test_every_source_file_names_its_licence() -> None:
    missing = []
    for path, text in text_files():
        head = "\n".join(text.splitlines()[:2])
        if path.parts[0] == "bpf" and path.suffix in {".c", ".h"}:
            missing += [str(path)] if BPF_LICENCE not in head else []
        elif path.suffix == ".py" or text.startswith("#!") or path.name == "Makefile":
            missing += [str(path)] if PYTHON_LICENCE not in head else []
    assert missing == []


@pytest.mark.parametrize("forbidden", [MACHINE_PATHS, REGISTRY_HOSTS, SKIPS])
def test_nothing_forbidden_is_written_down(forbidden: re.Pattern[str]) -> None:
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, text in text_files()
        for number, line in enumerate(text.splitlines(), 1)
        if forbidden.search(line)
    ]
    assert found == []


def test_unit_tests_are_named_after_what_they_test() -> None:
    """tests/unit/ovsdb/test_wire_limits.py tests src/heliograph/ovsdb/wire.py."""
    strays = []
    for path, _text in python_files():
        if path.parts[:2] != ("tests", "unit") or path.name in {"test_house.py", "test_docs.py"}:
            continue
        if path.name.startswith("test_"):
            package = ROOT / "src/heliograph" / Path(*path.parts[2:-1])
            words = path.stem.removeprefix("test_").split("_")
            names = ["_".join(words[:n]) for n in range(1, len(words) + 1)]
            tested = any((package / f"{n}.py").exists() or (package / n).is_dir() for n in names)
            strays += [str(path)] if not tested else []
    assert strays == []


def test_the_rules_notice_an_offence() -> None:
    """Each detector finds what it is there for; otherwise the rules above could not fail."""
    body = "    x = 1\n" * PYTHON_FUNCTION
    assert long_python_functions(f"def f():\n{body}") == [f"f: {PYTHON_FUNCTION + 1}"]
    body = "\tx = 1;\n" * BPF_FUNCTION
    assert long_c_functions(f"static int f(void)\n{{\n{body}}}\n") == [
        f"line 2: {BPF_FUNCTION + 2}"
    ]
    assert long_c_functions(f"static int f(void) {{\n{body}}}\n")
    assert MACHINE_PATHS.search("open('/" + "work/main')")
    assert not MACHINE_PATHS.search("src/" + "work/main")
    assert REGISTRY_HOSTS.search("https://pypi" + ".org/simple")
    assert SKIPS.search("@pytest.mark." + "skipif(True)")
    assert SKIPS.search("pytest." + "skip('later')")
