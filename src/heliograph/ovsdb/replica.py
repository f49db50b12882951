# SPDX-License-Identifier: Apache-2.0
"""A client's copy of monitored tables, kept current by update notifications."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any
from uuid import UUID

from heliograph.ovsdb.errors import Json
from heliograph.ovsdb.schema import Schema, TableSchema
from heliograph.ovsdb.types import Datum
from heliograph.ovsdb.values import Value, make_uuid, to_python


class Row(Mapping[str, Any]):
    """One row as it was when it was looked at; a change makes a new Row.

    Values are as values.py has them and made when first asked for: most updates are
    statistics, and most readers want few columns.
    """

    __slots__ = ("_data", "_schema", "_values", "uuid")

    def __init__(self, schema: TableSchema, uuid: UUID, data: dict[str, Datum]) -> None:
        self._schema = schema
        self._data = data
        self._values: dict[str, Value] = {}
        self.uuid = uuid

    @property
    def table(self) -> str:
        return self._schema.name

    def __getitem__(self, column: str) -> Any:
        """The column's value; KeyError if it is not monitored."""
        if column not in self._values:
            datum = self._data[column]
            self._values[column] = to_python(self._schema.column(column).type, datum)
        return self._values[column]

    def __iter__(self) -> Iterator[str]:
        return iter(self._data)

    def __len__(self) -> int:
        return len(self._data)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Row):
            return NotImplemented
        return (self.table, self.uuid, self._data) == (other.table, other.uuid, other._data)

    def __hash__(self) -> int:
        return hash((self.table, self.uuid))

    def __repr__(self) -> str:
        return f"<{self.table} {self.uuid} {dict(self)}>"

    def data(self) -> Mapping[str, Datum]:
        return MappingProxyType(self._data)


class Replica:
    """The monitored tables: `tables[name][uuid]` is a Row.

    `columns` says which are monitored; a row has all of them, also those at their defaults.
    """

    def __init__(self, schema: Schema, columns: Mapping[str, tuple[str, ...]]) -> None:
        self.schema = schema
        self.columns = dict(columns)
        self.tables: dict[str, dict[UUID, Row]] = {name: {} for name in columns}
        self._defaults = {
            name: {column: schema.table(name).column(column).type.default for column in wanted}
            for name, wanted in columns.items()
        }

    def apply(self, updates: Json) -> None:
        """Applies <table-updates2> (monitor_cond). Raises OvsdbError or KeyError if they do not
        fit what is here: then the copy is worthless."""
        for name, rows in updates.items():
            for row, update in rows.items():
                ((kind, values),) = update.items()
                uuid = make_uuid(row)
                if kind == "delete":
                    del self.tables[name][uuid]
                elif kind == "modify":
                    self._modify(name, uuid, values)
                else:
                    self._set(name, uuid, self._defaults[name], values)

    def apply_monitor(self, updates: Json) -> None:
        """Applies <table-updates> (RFC 7047 section 4.1.6), for servers without monitor_cond."""
        for name, rows in updates.items():
            for row, update in rows.items():
                uuid = make_uuid(row)
                if "new" in update:
                    self._set(name, uuid, self._defaults[name], update["new"])
                else:
                    del self.tables[name][uuid]

    def _set(self, name: str, uuid: UUID, base: Mapping[str, Datum], values: Json) -> None:
        schema = self.schema.table(name)
        data = dict(base)
        for column, json in values.items():
            data[column] = schema.column(column).type.parse(json)
        self.tables[name][uuid] = Row(schema, uuid, data)

    def _modify(self, name: str, uuid: UUID, values: Json) -> None:
        schema = self.schema.table(name)
        data = dict(self.tables[name][uuid].data())
        for column, json in values.items():
            kind = schema.column(column).type
            diff = (kind.relaxed if kind.is_composite else kind).parse(json)
            data[column] = kind.apply_diff(data[column], diff)
        self.tables[name][uuid] = Row(schema, uuid, data)
