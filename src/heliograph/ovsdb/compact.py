# SPDX-License-Identifier: Apache-2.0
"""A compact notation for database schemas, expanded to the JSON of RFC 7047 section 3.2.

A table begins a line, its columns follow indented; columns of one type share a line:

    Port index(name)
      const name: string
      interfaces: @Interface+
      tag: 0..4095?
      status rstp_status: {string: string} ephemeral

| written                        | meaning                                                     |
|--------------------------------|-------------------------------------------------------------|
| `string`, `integer`, `boolean`, `uuid` | atoms                                               |
| `1..512`, `1000..`             | integers within a range, from a minimum                     |
| `(up down)`                    | one of these strings                                        |
| `@Port`, `~Port`               | strong, weak reference to a row of Port                     |
| `T`, `T?`, `T*`, `T+`, `T*16`  | one, at most one, any number, at least one, up to 16 of T   |
| `{K: V}`                       | a map of any number of pairs                                |
| `const` before a column        | immutable                                                   |
| `ephemeral` after a type       | not kept on disk                                            |
| after a table's name           | `root`, `max(1)` rows, `index(a b)`: columns unique together |
"""

from __future__ import annotations

import re

from heliograph.ovsdb.errors import Json

_RANGE = re.compile(r"(-?\d+)\.\.(\d*)")
_MAP = re.compile(r"\{(.+): (.+)\}")
_COUNTED = re.compile(r"(.+?)(\?|\+|\*\d*)")
_OPTION = re.compile(r"(\w+)(?:\(([^)]*)\))?")


def expand(name: str, version: str, text: str, cksum: str = "") -> dict[str, Json]:
    """The <database-schema> that `text` describes. Raises ValueError naming a wrong line."""
    tables: dict[str, Json] = {}
    columns: dict[str, Json] = {}
    for line in filter(str.strip, text.splitlines()):
        if not line.startswith(" "):
            table, options = line.partition(" ")[::2]
            columns = {}
            tables[table] = {"columns": columns, **_table_options(options)}
            continue
        names, _, type_text = line.strip().partition(": ")
        if not type_text:
            raise ValueError(f"a column without a type: {line!r}")
        column = _column(type_text)
        if names.startswith("const "):
            names = names.removeprefix("const ")
            column["mutable"] = False
        columns.update((column_name, column) for column_name in names.split())
    schema = {"name": name, "version": version, "tables": tables}
    if cksum:
        schema["cksum"] = cksum
    return schema


def _table_options(text: str) -> dict[str, Json]:
    options: dict[str, Json] = {}
    for word, argument in _OPTION.findall(text):
        if word == "root":
            options["isRoot"] = True
        elif word == "max":
            options["maxRows"] = int(argument)
        elif word == "index":
            options.setdefault("indexes", []).append(argument.split())
        else:
            raise ValueError(f"unknown table option {word!r}")
    return options


def _column(text: str) -> dict[str, Json]:
    type_text = text.removesuffix(" ephemeral")
    column: dict[str, Json] = {"type": _type(type_text)}
    if type_text != text:
        column["ephemeral"] = True
    return column


def _type(text: str) -> Json:
    if match := _MAP.fullmatch(text):
        key, value = map(_base, match.groups())
        return {"key": key, "value": value, "min": 0, "max": "unlimited"}
    match = _COUNTED.fullmatch(text)
    if match is None:
        base = _base(text)
        return base if isinstance(base, str) else {"key": base}
    base, count = _base(match[1]), match[2]
    if count == "?":
        return {"key": base, "min": 0, "max": 1}
    if count == "+":
        return {"key": base, "min": 1, "max": "unlimited"}
    return {"key": base, "min": 0, "max": int(count[1:]) if count[1:] else "unlimited"}


def _base(text: str) -> Json:
    if text in ("string", "integer", "real", "boolean", "uuid"):
        return text
    if text.startswith("@"):
        return {"type": "uuid", "refTable": text[1:]}
    if text.startswith("~"):
        return {"type": "uuid", "refTable": text[1:], "refType": "weak"}
    if text.startswith("(") and text.endswith(")"):
        return {"type": "string", "enum": ["set", text[1:-1].split()]}
    if match := _RANGE.fullmatch(text):
        limits = {"type": "integer", "minInteger": int(match[1])}
        return limits | ({"maxInteger": int(match[2])} if match[2] else {})
    raise ValueError(f"unknown type {text!r}")
