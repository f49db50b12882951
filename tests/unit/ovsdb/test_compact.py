# SPDX-License-Identifier: Apache-2.0
"""The schema notation, written form by written form."""

from __future__ import annotations

from typing import Any

import pytest

from heliograph.ovsdb import compact


def column(text: str) -> Any:
    return compact.expand("D", "1.0.0", f"T\n  c: {text}")["tables"]["T"]["columns"]["c"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("string", "string"),
        ("0..5", {"key": {"type": "integer", "minInteger": 0, "maxInteger": 5}}),
        ("-1..", {"key": {"type": "integer", "minInteger": -1}}),
        ("integer?", {"key": "integer", "min": 0, "max": 1}),
        ("string*", {"key": "string", "min": 0, "max": "unlimited"}),
        ("string+", {"key": "string", "min": 1, "max": "unlimited"}),
        ("string*4", {"key": "string", "min": 0, "max": 4}),
        ("@A", {"key": {"type": "uuid", "refTable": "A"}}),
        (
            "~A*",
            {
                "key": {"type": "uuid", "refTable": "A", "refType": "weak"},
                "min": 0,
                "max": "unlimited",
            },
        ),
        (
            "(a b-c)?",
            {"key": {"type": "string", "enum": ["set", ["a", "b-c"]]}, "min": 0, "max": 1},
        ),
        (
            "{0..9: @A}",
            {
                "key": {"type": "integer", "minInteger": 0, "maxInteger": 9},
                "value": {"type": "uuid", "refTable": "A"},
                "min": 0,
                "max": "unlimited",
            },
        ),
    ],
)
def test_types(text: str, expected: Any) -> None:
    assert column(text)["type"] == expected


def test_flags_and_options() -> None:
    schema = compact.expand(
        "D",
        "1.0.0",
        "T root max(1) index(a b) index(c)\n  const a b: string\n  c: integer ephemeral",
    )
    table = schema["tables"]["T"]
    assert (table["isRoot"], table["maxRows"]) == (True, 1)
    assert table["indexes"] == [["a", "b"], ["c"]]
    assert table["columns"]["a"] == table["columns"]["b"] == {"type": "string", "mutable": False}
    assert table["columns"]["c"] == {"type": "integer", "ephemeral": True}


@pytest.mark.parametrize("text", ["T\n  c", "T\n  c: text", "T wide\n  c: string"])
def test_a_wrong_line_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=r"'.+'"):
        compact.expand("D", "1.0.0", text)
