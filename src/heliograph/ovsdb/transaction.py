# SPDX-License-Identifier: Apache-2.0
"""One transaction: changes rows in place of the tables, checks all at the end, or undoes all.

Constraints between rows are checked when it commits (RFC 7047 section 3.2: "deferred until
transaction commit time"), in this order: strong references, garbage collection, maximum
rows, weak references, indexes. Checks look only at rows touched and rows they refer to.
"""

from __future__ import annotations

from collections import Counter, deque

from heliograph.ovsdb.database import (
    Changes,
    Commit,
    Database,
    IndexKey,
    Row,
    RowKey,
    Table,
    index_key,
)
from heliograph.ovsdb.errors import ConstraintError, OvsdbError
from heliograph.ovsdb.schema import Column
from heliograph.ovsdb.types import Datum


class Transaction:
    """Changes to one database that happen together or not at all."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self._before: dict[str, dict[str, Row | None]] = {}
        self._references: Counter[RowKey] = Counter()
        self._unreferenced: deque[RowKey] = deque()

    def may_insert(self, table: Table, row: str) -> bool:
        """False if a row of that UUID exists or this transaction deleted it."""
        return row not in table.rows and row not in self._before.get(table.name, {})

    def insert(self, table: Table, row: str, data: Row) -> None:
        """Adds a row; `data` has every column and from now on belongs to the database."""
        data["_uuid"] = (row,)
        data["_version"] = self.database.next_version()
        self._before.setdefault(table.name, {})[row] = None
        table.rows[row] = data

    def modify(self, table: Table, row: str) -> Row:
        """The row, to be changed by assignment to its columns."""
        touched = self._before.setdefault(table.name, {})
        if row not in touched:
            touched[row] = table.rows[row]
            table.rows[row] = dict(table.rows[row])
        return table.rows[row]

    def delete(self, table: Table, row: str) -> None:
        touched = self._before.setdefault(table.name, {})
        if touched.setdefault(row, table.rows[row]) is None:
            del touched[row]  # inserted by this transaction: as if it had never been
        del table.rows[row]

    def abort(self) -> None:
        """Puts everything back."""
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row, old in rows.items():
                if old is None:
                    table.rows.pop(row, None)
                else:
                    table.rows[row] = old
        self._before.clear()

    def commit(self) -> Commit:
        """Checks and keeps the changes.

        Raises OvsdbError "referential integrity violation" or "constraint violation", after
        which nothing has changed.
        """
        try:
            self._drop_unchanged()
            self._count_references()
            self._collect_garbage()
            self._check_max_rows()
            self._prune_weak_references()
            self._check_indexes()
        except BaseException:
            self.abort()
            raise
        references = {key: delta for key, delta in self._references.items() if delta}
        commit = Commit(self._changes(), references)
        self.database.account(commit)
        return commit

    def _drop_unchanged(self) -> None:
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row, old in list(rows.items()):
                new = table.rows.get(row)
                if old is None and new is None:
                    del rows[row]
                elif old is not None and new is not None:
                    if any(new[c] is not old[c] and new[c] != old[c] for c in new):
                        new["_version"] = self.database.next_version()
                    else:
                        table.rows[row] = old
                        del rows[row]

    def _count_references(self) -> None:
        # RFC 7047 section 3.2, refType "strong": a row must not refer to a row that does not
        # exist, and a row that is referred to must not be deleted.
        sources: dict[RowKey, tuple[str, str, str]] = {}
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row, old in rows.items():
                new = table.rows.get(row)
                for column in table.schema.strong:
                    for target in self._shift((name, row), column, old, new):
                        sources[target] = (name, column.name, row)
                if old is None and not table.schema.is_root:
                    self._unreferenced.append((name, row))
        for (table_name, row), (name, column_name, source) in sources.items():
            if row not in self.database.tables[table_name].rows:
                raise OvsdbError(
                    "referential integrity violation",
                    f"Table {name} column {column_name} row {source} references nonexistent "
                    f"row {row} in table {table_name}.",
                )
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row in rows:
                if row not in table.rows and (count := self._count(table, row)):
                    raise OvsdbError(
                        "referential integrity violation",
                        f"cannot delete {name} row {row} because of {count} remaining reference(s)",
                    )

    def _shift(
        self, source: RowKey, column: Column, old: Row | None, new: Row | None
    ) -> list[RowKey]:
        """Moves the reference counts from `old` to `new`; returns the new targets.

        A row's reference to itself does not count: it would never be garbage.
        """
        before = () if old is None else old[column.name]
        after = () if new is None else new[column.name]
        if before is after:
            return []
        if isinstance(before, tuple) and isinstance(after, tuple):
            lost = _strong_targets(column, tuple(set(before).difference(after)))
            gained = _strong_targets(column, tuple(set(after).difference(before)))
        else:
            lost, gained = _strong_targets(column, before), _strong_targets(column, after)
        for target in lost:
            if target != source:
                self._references[target] -= 1
                self._unreferenced.append(target)
        for target in gained:
            if target != source:
                self._references[target] += 1
        return gained

    def _count(self, table: Table, row: str) -> int:
        return table.strong.get(row, 0) + self._references[table.name, row]

    def _collect_garbage(self) -> None:
        # RFC 7047 section 3.2, isRoot: a row of another table lives while it is referred to.
        while self._unreferenced:
            name, row = self._unreferenced.popleft()
            table = self.database.tables[name]
            if table.schema.is_root or row not in table.rows or self._count(table, row):
                continue
            old = table.rows[row]
            self.delete(table, row)
            for column in table.schema.strong:
                self._shift((name, row), column, old, None)

    def _check_max_rows(self) -> None:
        for name in self._before:
            table = self.database.tables[name]
            if len(table.rows) > table.schema.max_rows:
                raise ConstraintError(
                    f'transaction causes "{name}" table to contain {len(table.rows)} rows, '
                    f"greater than the schema-defined limit of {table.schema.max_rows} row(s)"
                )

    def _prune_weak_references(self) -> None:
        # RFC 7047 section 3.2, refType "weak": such a reference goes with the row it names.
        suspects: dict[tuple[str, str, str], None] = {}
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row, old in rows.items():
                new = table.rows.get(row)
                if new is None:
                    suspects.update(dict.fromkeys(table.weak.get(row, ())))
                else:
                    for column in table.schema.weak:
                        if old is None or old[column.name] is not new[column.name]:
                            suspects[name, row, column.name] = None
        for name, row, column_name in suspects:
            table = self.database.tables[name]
            if row in table.rows:
                self._prune(table, row, table.schema.columns[column_name])
        if self._unreferenced:  # a map may pair a weak reference with a strong one
            self._collect_garbage()
            self._prune_weak_references()

    def _prune(self, table: Table, row: str, column: Column) -> None:
        old = table.rows[row]
        datum = old[column.name]
        kept = self._existing(column, datum)
        if len(kept) == len(datum):
            return
        if len(kept) < column.type.n_min:
            raise ConstraintError(
                f'deletion of rows leaves "{table.name}" row {row} with {len(kept)} weak '
                f'reference(s) in column "{column.name}", which needs {column.type.n_min}'
            )
        unpruned = dict(old)
        new = self.modify(table, row)
        new[column.name] = kept
        new["_version"] = self.database.next_version()
        if column in table.schema.strong:
            self._shift((table.name, row), column, unpruned, new)

    def _existing(self, column: Column, datum: Datum) -> Datum:
        tables, key, value = self.database.tables, column.type.key, column.type.value

        def exists(table: str | None, atom: object) -> bool:
            return table is None or atom in tables[table].rows

        key_table = key.ref_table if key.weak else None
        value_table = value.ref_table if value is not None and value.weak else None
        if isinstance(datum, dict):
            return {
                k: v for k, v in datum.items() if exists(key_table, k) and exists(value_table, v)
            }
        return tuple(atom for atom in datum if exists(key_table, atom))

    def _check_indexes(self) -> None:
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for columns, index in zip(table.schema.indexes, table.indexes, strict=True):
                added: dict[IndexKey, str] = {}
                for row in rows:
                    new = table.rows.get(row)
                    if new is None:
                        continue
                    key = index_key(columns, new)
                    other = added.setdefault(key, row)
                    if other == row:
                        # A row touched here is judged by its new key, not by the index's.
                        standing = index.get(key, row)
                        other = row if standing in rows else standing
                    if other != row:
                        raise ConstraintError(
                            f'Transaction causes rows {other} and {row} in "{name}" table to '
                            f"have identical values for index on {', '.join(columns)}: "
                            f"{_words(table, columns, new)}."
                        )

    def _changes(self) -> Changes:
        changes = Changes()
        for name, rows in self._before.items():
            table = self.database.tables[name]
            for row, old in rows.items():
                changes.add(name, row, old, table.rows.get(row))
        return changes


def _strong_targets(column: Column, datum: Datum) -> list[RowKey]:
    key, value = column.type.key, column.type.value
    targets: list[RowKey] = []
    if key.strong and key.ref_table:
        targets.extend((key.ref_table, str(atom)) for atom in datum)
    if value is not None and value.strong and value.ref_table and isinstance(datum, dict):
        targets.extend((value.ref_table, str(atom)) for atom in datum.values())
    return targets


def _words(table: Table, columns: tuple[str, ...], row: Row) -> str:
    return ", ".join(
        f"{column}={table.schema.columns[column].type.to_json(row[column])}" for column in columns
    )
