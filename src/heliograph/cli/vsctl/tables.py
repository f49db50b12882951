# SPDX-License-Identifier: Apache-2.0
"""What `list` and `find` print, in the styles of ovs-vsctl's --format and --data."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from heliograph.cli.vsctl import values
from heliograph.ovsdb.types import ColumnType, Datum


@dataclass
class Style:
    format: str = "list"
    data: str = "string"
    headings: bool = True
    pretty: bool = False


Cell = tuple[ColumnType, Datum]


@dataclass(frozen=True)
class Table:
    headings: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def _cell(cell: Cell, style: Style) -> str:
    kind, data = cell
    if style.data == "json":
        return json.dumps(kind.to_json(data), separators=(",", ":"), ensure_ascii=False)
    return values.bare_text(kind, data) if style.data == "bare" else values.text(kind, data)


def _grid(table: Table, style: Style) -> str:
    rows = [[_cell(cell, style) for cell in row] for row in table.rows]
    widths = [
        max(len(heading), *(len(row[x]) for row in rows)) if rows else len(heading)
        for x, heading in enumerate(table.headings)
    ]
    if style.headings:
        rows = [list(table.headings), ["-" * width for width in widths], *rows]
    return "".join(" ".join(map(str.ljust, row, widths)).rstrip(" ") + "\n" for row in rows)


def _list(table: Table, style: Style) -> str:
    records = []
    for row in table.rows:
        labels = [f"{heading:<20}: " if style.headings else "" for heading in table.headings]
        cells = (_cell(cell, style) for cell in row)
        records.append("".join(f"{a}{b}\n" for a, b in zip(labels, cells, strict=True)))
    return "\n".join(records)


def _csv(table: Table, style: Style) -> str:
    rows = [[_cell(cell, style) for cell in row] for row in table.rows]
    if style.headings:
        rows.insert(0, list(table.headings))

    def quoted(word: str) -> str:
        return '"' + word.replace('"', '""') + '"' if set('\n",') & set(word) else word

    return "".join(",".join(map(quoted, row)) + "\n" for row in rows)


def _json(table: Table, style: Style) -> str:
    content = {
        "data": [[kind.to_json(data) for kind, data in row] for row in table.rows],
        "headings": list(table.headings),
    }
    if style.pretty:
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    return json.dumps(content, separators=(",", ":"), ensure_ascii=False) + "\n"


FORMATS: Mapping[str, Callable[[Table, Style], str]] = {
    "table": _grid,
    "list": _list,
    "csv": _csv,
    "json": _json,
}
DATA = ("string", "bare", "json")


def render(tables: Sequence[Table | str], style: Style) -> str:
    """The output of all commands of a line; between two tables stands an empty line."""
    out: list[str] = []
    seen = False
    for item in tables:
        if isinstance(item, str):
            out.append(item)
            continue
        if seen and style.format != "json":
            out.append("\n")
        seen = True
        out.append(FORMATS[style.format](item, style))
    return "".join(out)
