# SPDX-License-Identifier: Apache-2.0
"""One transaction: changes laid over a replica of the database, then turned into operations.

What a command read in order to decide is verified by `wait` operations, so that the line is
carried out on what it saw or not at all ("timed out", and the line runs again).
"""

import uuid
from collections.abc import Iterator, Mapping

from heliograph.ovsdb.errors import Json
from heliograph.ovsdb.types import ColumnType, Datum

# table -> row UUID -> column -> data, as monitored
Snapshot = Mapping[str, Mapping[str, Mapping[str, Datum]]]
# table -> column -> type
Types = Mapping[str, Mapping[str, ColumnType]]


class Transaction:
    """Rows are named by their UUID's text; a new row's is provisional until committed."""

    def __init__(self, types: Types, snapshot: Snapshot) -> None:
        self._types = types
        self._snapshot = snapshot
        self._verified: dict[tuple[str, str], dict[str, Datum]] = {}
        self._written: dict[tuple[str, str], dict[str, Datum]] = {}
        self._inserted: dict[str, str] = {}
        self._deleted: dict[str, str] = {}
        self._empty: list[str] = []

    def rows(self, table: str) -> Iterator[str]:
        """In the order of their UUIDs, new ones last."""
        known = self._snapshot.get(table, {})
        yield from (row for row in sorted(known) if row not in self._deleted)
        yield from [row for row, where in self._inserted.items() if where == table]

    def exists(self, table: str, row: str) -> bool:
        if row in self._inserted:
            return self._inserted[row] == table
        return row in self._snapshot.get(table, {}) and row not in self._deleted

    def read(self, table: str, row: str, column: str) -> Datum:
        """With this transaction's own changes; a column not monitored reads as its default."""
        written = self._written.get((table, row), {})
        if column in written:
            return written[column]
        return self._old(table, row, column)

    def _old(self, table: str, row: str, column: str) -> Datum:
        kept = self._snapshot.get(table, {}).get(row, {})
        return kept[column] if column in kept else self._types[table][column].default

    def is_new(self, row: str) -> bool:
        return row in self._inserted

    def verify(self, table: str, row: str, column: str) -> None:
        """Commit only if `column` still is what the replica says."""
        if row not in self._inserted and column in self._snapshot.get(table, {}).get(row, {}):
            self._verified.setdefault((table, row), {})[column] = self._old(table, row, column)

    def verify_empty(self, table: str) -> None:
        """Commit only if `table` still has no row."""
        self._empty.append(table)

    def write(self, table: str, row: str, column: str, data: Datum) -> None:
        self._written.setdefault((table, row), {})[column] = data

    def insert(self, table: str, row: str | None = None) -> str:
        row = row or str(uuid.uuid4())
        self._inserted[row] = table
        return row

    def delete(self, table: str, row: str) -> None:
        self._written.pop((table, row), None)
        if self._inserted.pop(row, None) is None:
            self._deleted[row] = table

    def touched(self) -> list[tuple[str, str]]:
        """(table, row) of everything inserted or written, once, in order."""
        made = [(table, row) for row, table in self._inserted.items()]
        return list(dict.fromkeys([*made, *self._written]))

    def changes(self) -> list[Json]:
        """The operations that change rows; empty when every write leaves its column as it is.

        Writes of the value already there are sent along with real ones: another client may
        have changed it meanwhile.
        """
        operations: list[Json] = []
        real = bool(self._inserted or self._deleted)
        for row, table in self._deleted.items():
            operations.append({"op": "delete", "table": table, "where": _where(row)})
        for row, table in self._inserted.items():
            columns = self._written.get((table, row), {})
            new = {
                column: self._json(table, column, data)
                for column, data in columns.items()
                if data != self._types[table][column].default
            }
            operations.append({"op": "insert", "table": table, "uuid-name": _name(row), "row": new})
        for (table, row), columns in self._written.items():
            if row in self._inserted or row in self._deleted:
                continue
            real |= any(data != self._old(table, row, name) for name, data in columns.items())
            new = {column: self._json(table, column, data) for column, data in columns.items()}
            operations.append({"op": "update", "table": table, "where": _where(row), "row": new})
        return operations if real else []

    def prerequisites(self) -> list[Json]:
        """The `wait` operations (RFC 7047 section 5.2.6) for what was verified."""
        waits = [_wait(table, [], [], []) for table in self._empty]
        for (table, row), columns in self._verified.items():
            until = {name: self._json(table, name, data) for name, data in columns.items()}
            waits.append(_wait(table, _where(row), sorted(columns), [until]))
        return waits

    def increment(self, table: str, row: str, column: str) -> list[Json]:
        """Add 1 to `column` and read it back."""
        where = [["_uuid", "==", self._reference(row)]]
        mutation = [[column, "+=", 1]]
        return [
            {"op": "mutate", "table": table, "where": where, "mutations": mutation},
            {"op": "select", "table": table, "where": where, "columns": [column]},
        ]

    def _json(self, table: str, column: str, data: Datum) -> Json:
        return self._named(self._types[table][column].to_json(data))

    def _named(self, value: Json) -> Json:
        """The same with references to new rows by their names."""
        if not isinstance(value, list):
            return value
        if len(value) == 2 and value[0] == "uuid":
            return self._reference(value[1])
        return [self._named(item) for item in value]

    def _reference(self, row: str) -> Json:
        return ["named-uuid", _name(row)] if row in self._inserted else ["uuid", row]


def _where(row: str) -> Json:
    return [["_uuid", "==", ["uuid", row]]]


def _wait(table: str, where: Json, columns: list[str], rows: Json) -> Json:
    return {
        "op": "wait",
        "table": table,
        "timeout": 0,
        "where": where,
        "until": "==",
        "columns": columns,
        "rows": rows,
    }


def _name(row: str) -> str:
    return "row" + row.replace("-", "_")
