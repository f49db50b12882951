# SPDX-License-Identifier: Apache-2.0
"""What the documents say of tests and of counters is so."""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RULES = {str(n) for n in (*range(1, 87), *range(91, 128))}
DEPARTURES = {f"D{number}" for number in range(1, 13)}
ROW = re.compile(r"\| (D?\d+) \| ([^|]*?) \| ([^|]*?) \| ([^|]*?) \|")
NUMBERS = re.compile(r"\brules? ((?:\d+|and|to|,|\s)+)")
NAMED_DEPARTURES = re.compile(r"\bdepartures? ((?:d?\d+|and|to|,|\s)+)|\b(d\d+)\b")
REASON = re.compile(r'X\((\w+), (\w+), "([^"]*)"\)')


def _expand(words: str) -> Iterator[int]:
    """The numbers of "44 to 46 and 50"."""
    last, through = 0, False
    for word in re.findall(r"\d+|to", words):
        if word == "to":
            through = True
            continue
        yield from range(last + 1 if through else int(word), int(word) + 1)
        last, through = int(word), False


def named_in(text: str) -> set[str]:
    """The rules and departures that a test's name, with blanks, or its docstring names."""
    text = text.lower()
    found = {str(n) for match in NUMBERS.finditer(text) for n in _expand(match[1])}
    for match in NAMED_DEPARTURES.finditer(text):
        found |= {f"D{number}" for number in _expand(match[1] or match[2])}
    return found


@cache
def naming_files() -> dict[str, set[str]]:
    """By rule or departure, the files (below tests/, without .py) with a test that names it."""
    found: dict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if node.name.startswith("test_"):
                says = f"{node.name.replace('_', ' ')}\n{ast.get_docstring(node) or ''}"
                for name in named_in(says):
                    found[name].add(str(path.relative_to(ROOT / "tests").with_suffix("")))
    return found


def rows() -> list[tuple[str, str, str, str]]:
    """Of docs/rules.md: number, what it is about, state, tests."""
    text = (ROOT / "docs/rules.md").read_text()
    return [(m[1], m[2], m[3], m[4]) for m in ROW.finditer(text)]


def test_the_table_has_every_rule_and_departure_once() -> None:
    numbers = [number for number, *_ in rows()]
    assert sorted(numbers) == sorted(RULES | DEPARTURES)


def test_what_is_called_done_is_named_by_the_tests_it_names() -> None:
    wrong = []
    for number, _, state, tests in rows():
        files = tests.split(", ") if tests else []
        strangers = set(files) - naming_files()[number]
        if strangers:
            wrong.append(f"{number}: {sorted(strangers)} do not name it")
        if state.startswith("done") and not files:
            wrong.append(f"{number}: done, and no test")
    assert wrong == []


def test_what_is_not_done_says_why() -> None:
    for number, _, state, _ in rows():
        departed = re.fullmatch(r"departed from: (D\d+)(, .*)?", state)
        known = state == "done" or re.match(r"(done; not yet|not yet): .{5,}", state)
        assert known or departed, f"{number}: {state}"
        assert not departed or departed[1] in DEPARTURES


def test_the_names_of_tests_are_understood() -> None:
    assert named_in("test rules 44 to 46 and 50 the copies") == {"44", "45", "46", "50"}
    assert named_in("test rule 9 two of 7") == {"9"}
    assert named_in("So it is (rules 2, 32, 51; departure D9).") == {"2", "32", "51", "D9"}
    assert named_in("test departures 2 and 6 every copy") == {"D2", "D6"}
    assert named_in("no rule at all, 17 times") == set()


def test_the_readme_lists_every_reason_for_a_drop() -> None:
    header = (ROOT / "bpf/reasons.h").read_text()
    reasons = {(f"drop_{key}", words) for _, key, words in REASON.findall(header)}
    table = re.findall(r"^\| `(drop_\w+)` \| (.*?) \|$", (ROOT / "README.md").read_text(), re.M)
    assert len(reasons) > 15
    assert set(table) == reasons
