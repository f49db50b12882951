# SPDX-License-Identifier: Apache-2.0
"""Tables of rows, and what is derived from them: reference counts, back references, indexes.

A row is a dict from column name to datum that is never changed once it is committed; a
transaction replaces rows. So a before-image costs nothing to keep: a transaction undoes
itself, monitors compare before with after, and a snapshot for compaction is a shallow copy.
The derived data is kept by the difference between before and after, so that a transaction
costs in proportion to what it touches, not to the size of the database.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from heliograph.ovsdb.schema import Column, Schema, TableSchema
from heliograph.ovsdb.types import Datum

Row: TypeAlias = dict[str, Datum]  # with `_uuid` and `_version`
RowKey: TypeAlias = tuple[str, str]  # table name, UUID
IndexKey: TypeAlias = tuple[object, ...]


class Changes(dict[str, dict[str, tuple[Row | None, Row | None]]]):
    """Table -> UUID -> row before and after; None where there is no row.

    `encoded` keeps what monitors of equal specification have already made of it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.encoded: dict[object, bytes] = {}

    def add(self, table: str, row: str, old: Row | None, new: Row | None) -> None:
        """Notes one row's change, joined to an earlier change of the same row."""
        rows = self.setdefault(table, {})
        first = rows[row][0] if row in rows else old
        if first is None and new is None:
            rows.pop(row, None)
        else:
            rows[row] = (first, new)

    def merge(self, later: Changes) -> None:
        """Makes this the change from before this to after `later`."""
        for table, rows in later.items():
            for row, (old, new) in rows.items():
                self.add(table, row, old, new)


@dataclass
class Commit:
    """A committed transaction: what it changed, and how it moved the reference counts."""

    changes: Changes
    references: Mapping[RowKey, int]
    comment: str = ""


@dataclass
class Table:
    """The rows of one table; `strong` counts the strong references to each row, `weak` names
    the table, row and column of each weak one."""

    schema: TableSchema
    rows: dict[str, Row] = field(default_factory=dict)
    strong: dict[str, int] = field(default_factory=dict)
    weak: dict[str, set[tuple[str, str, str]]] = field(default_factory=dict)
    indexes: list[dict[IndexKey, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.indexes = [{} for _ in self.schema.indexes]

    @property
    def name(self) -> str:
        return self.schema.name


def index_key(columns: Iterable[str], row: Row) -> IndexKey:
    """What two rows must not have in common under an index over `columns`."""
    data = (row[column] for column in columns)
    return tuple(tuple(datum.items()) if isinstance(datum, dict) else datum for datum in data)


def weak_targets(column: Column, row: Row | None) -> set[RowKey]:
    """The rows that `column` of `row` refers to weakly."""
    if row is None:
        return set()
    datum, key, value = row[column.name], column.type.key, column.type.value
    targets: set[RowKey] = set()
    if key.weak and key.ref_table:
        targets.update((key.ref_table, str(atom)) for atom in datum)
    if value is not None and value.weak and value.ref_table and isinstance(datum, dict):
        targets.update((value.ref_table, str(atom)) for atom in datum.values())
    return targets


class Database:
    """One database in memory. `writable` is false for `_Server`, which clients only read."""

    def __init__(self, schema: Schema, *, writable: bool = True) -> None:
        self.schema = schema
        self.name = schema.name
        self.writable = writable
        self.tables = {name: Table(table) for name, table in schema.tables.items()}
        self._version_prefix = str(uuid.uuid4())[:24]
        self._version = 0

    def next_version(self) -> Datum:
        """A new `_version`, never given before: cheaper than a random UUID for each row."""
        self._version += 1
        return (f"{self._version_prefix}{self._version:012x}",)

    def account(self, commit: Commit) -> None:
        """Brings the derived data from before `commit` to after it."""
        self._account(commit, 1)

    def revert(self, commit: Commit) -> None:
        """Undoes `commit`, the newest one, as if it had never been."""
        for name, changed in commit.changes.items():
            rows = self.tables[name].rows
            for row, (old, _) in changed.items():
                if old is None:
                    del rows[row]
                else:
                    rows[row] = old
        self._account(commit, -1)

    def _account(self, commit: Commit, sign: int) -> None:
        for (table, row), delta in commit.references.items():
            counts = self.tables[table].strong
            count = counts.get(row, 0) + sign * delta
            if count:
                counts[row] = count
            else:
                counts.pop(row, None)
        for name, rows in commit.changes.items():
            changed = self.tables[name]
            images = [
                (row, old, new) if sign > 0 else (row, new, old) for row, (old, new) in rows.items()
            ]
            self._account_weak(changed, images)
            _account_indexes(changed, images)

    def _account_weak(self, table: Table, images: list[tuple[str, Row | None, Row | None]]) -> None:
        for column in table.schema.weak:
            name = column.name
            for row, old, new in images:
                if old is not None and new is not None and old[name] is new[name]:
                    continue
                source = (table.name, row, name)
                before, after = weak_targets(column, old), weak_targets(column, new)
                for target_table, target in before - after:
                    sources = self.tables[target_table].weak
                    sources[target].discard(source)
                    if not sources[target]:
                        del sources[target]
                for target_table, target in after - before:
                    self.tables[target_table].weak.setdefault(target, set()).add(source)


def _account_indexes(table: Table, images: list[tuple[str, Row | None, Row | None]]) -> None:
    for columns, index in zip(table.schema.indexes, table.indexes, strict=True):
        moved = [
            (row, old, new)
            for row, old, new in images
            if old is None or new is None or any(old[c] is not new[c] for c in columns)
        ]
        # All the old keys go first: one row may take the name that another gives up.
        for _, old, _ in moved:
            if old is not None:
                del index[index_key(columns, old)]
        for row, _, new in moved:
            if new is not None:
                index[index_key(columns, new)] = row
