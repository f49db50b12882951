# SPDX-License-Identifier: Apache-2.0
"""Database schemas, typed (RFC 7047 section 3.2), over `ovs.db.schema`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import ovs.db.error
import ovs.db.schema

from heliograph.ovsdb.errors import Json, MalformedError, OvsdbError
from heliograph.ovsdb.types import BaseType, ColumnType, Datum


@dataclass(frozen=True, eq=False)
class Column:
    """One column; `persistent` is the opposite of the RFC's `ephemeral`."""

    name: str
    type: ColumnType
    mutable: bool
    persistent: bool


# RFC 7047 section 3.2: every table has these two; the server alone writes them.
_UUID_TYPE = ColumnType.from_json("uuid")
IMPLICIT = {name: Column(name, _UUID_TYPE, False, False) for name in ("_uuid", "_version")}


@dataclass(frozen=True, eq=False)
class TableSchema:
    """One table; `indexes` are sets of columns that no two rows may have equal."""

    name: str
    columns: dict[str, Column]
    max_rows: int
    is_root: bool
    indexes: tuple[tuple[str, ...], ...]
    strong: tuple[Column, ...] = field(init=False)
    weak: tuple[Column, ...] = field(init=False)
    defaults: dict[str, Datum] = field(init=False)
    filled: dict[str, Datum] = field(init=False)  # those of sets and maps that are not empty

    def __post_init__(self) -> None:
        columns = self.columns.values()
        strong = tuple(c for c in columns if any(base.strong for base in _bases(c)))
        weak = tuple(c for c in columns if any(base.weak for base in _bases(c)))
        object.__setattr__(self, "strong", strong)
        object.__setattr__(self, "weak", weak)
        object.__setattr__(self, "defaults", {c.name: c.type.default for c in columns})
        filled = {c.name: c.type.default for c in columns if c.type.is_composite and c.type.n_min}
        object.__setattr__(self, "filled", filled)

    def column(self, name: str, syntax: Json = None) -> Column:
        """The column called `name`, also `_uuid` and `_version`.

        Raises OvsdbError "unknown column".
        """
        column = self.columns.get(name) or IMPLICIT.get(name)
        if column is None:
            raise OvsdbError("unknown column", f"No column {name} in table {self.name}.", syntax)
        return column

    def all_columns(self) -> tuple[str, ...]:
        return (*IMPLICIT, *self.columns)


def _bases(column: Column) -> Iterator[BaseType]:
    yield column.type.key
    if column.type.value is not None:
        yield column.type.value


class Schema:
    """A database schema; `json` is its RFC 7047 form as it goes over the wire."""

    def __init__(self, json: dict[str, Json]) -> None:
        """Raises OvsdbError if `json` is not a <database-schema>."""
        try:
            parsed = ovs.db.schema.DbSchema.from_json(json)
        except ovs.db.error.Error as fault:
            raise OvsdbError(fault.tag, fault.msg, json) from None
        self.json = json
        self.name: str = parsed.name
        self.version: str = parsed.version or ""
        self.tables = {name: _table(table) for name, table in parsed.tables.items()}

    def table(self, name: str) -> TableSchema:
        """Raises MalformedError if there is no such table."""
        table = self.tables.get(name)
        if table is None:
            raise MalformedError(f"No table named {name}.")
        return table


def _table(table: Any) -> TableSchema:
    columns = {
        name: Column(name, ColumnType.from_ovs(column.type), column.mutable, column.persistent)
        for name, column in table.columns.items()
    }
    indexes = tuple(tuple(column.name for column in index) for index in table.indexes)
    return TableSchema(table.name, columns, table.max_rows, bool(table.is_root), indexes)
