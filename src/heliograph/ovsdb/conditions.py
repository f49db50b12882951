# SPDX-License-Identifier: Apache-2.0
"""Conditions on rows (RFC 7047 section 5.1, <condition>)."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from heliograph.ovsdb.database import Row, Table
from heliograph.ovsdb.errors import Json, MalformedError, OvsdbError
from heliograph.ovsdb.schema import Column, TableSchema
from heliograph.ovsdb.types import UNLIMITED, ColumnType, Datum, NameLookup

Test: TypeAlias = Callable[[Datum, Datum], bool]


def _includes(field: Datum, argument: Datum) -> bool:
    if isinstance(field, dict) and isinstance(argument, dict):
        return field.items() >= argument.items()
    return set(field).issuperset(argument)


def _excludes(field: Datum, argument: Datum) -> bool:
    if isinstance(field, dict) and isinstance(argument, dict):
        return field.items().isdisjoint(argument.items())
    return set(field).isdisjoint(argument)


def _ordered(compare: Callable[[Any, Any], bool]) -> Test:
    # An absent optional value is neither less nor greater than anything.
    return lambda field, argument: bool(field) and compare(field, argument)


_ORDERED: dict[str, Test] = {
    "<": _ordered(operator.lt),
    "<=": _ordered(operator.le),
    ">": _ordered(operator.gt),
    ">=": _ordered(operator.ge),
}
_TESTS: dict[str, Test] = {
    "==": operator.eq,
    "!=": operator.ne,
    "includes": _includes,
    "excludes": _excludes,
    **_ORDERED,
}


@dataclass(frozen=True)
class Clause:
    """One <condition>; `function` is its name as written."""

    column: str
    function: str
    test: Test
    argument: Datum

    def matches(self, row: Row) -> bool:
        return self.test(row[self.column], self.argument)


@dataclass(frozen=True)
class Condition:
    """All (`every`) or any of some clauses; without clauses it matches every row."""

    clauses: tuple[Clause | bool, ...]
    every: bool

    def matches(self, row: Row) -> bool:
        if not self.clauses:
            return True
        hits = (c if isinstance(c, bool) else c.matches(row) for c in self.clauses)
        return all(hits) if self.every else any(hits)

    def select(self, table: Table) -> Iterator[str]:
        """The UUIDs of the rows that match; one row asked for by UUID costs one look-up."""
        if self.every:
            for clause in self.clauses:
                if (
                    isinstance(clause, Clause)
                    and clause.column == "_uuid"
                    and clause.function in ("==", "includes")
                    and clause.argument
                ):
                    row = str(next(iter(clause.argument)))
                    if row in table.rows and self.matches(table.rows[row]):
                        yield row
                    return
        for row, data in list(table.rows.items()):
            if self.matches(data):
                yield row


ALWAYS = Condition((), every=True)


def parse(
    table: TableSchema, json: Json, names: NameLookup | None = None, *, every: bool = True
) -> Condition:
    """A condition from an array of clauses; operations need every one, monitors any.

    Raises OvsdbError for an unknown column or function, or a value of the wrong type.
    """
    if not isinstance(json, list):
        raise MalformedError("array expected", json)
    return Condition(tuple(_clause(table, clause, names) for clause in json), every)


def _clause(table: TableSchema, json: Json, names: NameLookup | None) -> Clause | bool:
    if isinstance(json, bool):  # ovsdb-server(7) adds these two to the RFC's conditions
        return json
    match json:
        case [str(column_name), str(function), argument]:
            column = table.column(column_name, json)
        case _:
            raise MalformedError("Parse error in condition.", json)
    test = _TESTS.get(function)
    if test is None:
        raise OvsdbError("unknown function", f"No function named {function}.", json)
    column_type = _argument_type(column, function, json)
    return Clause(column.name, function, test, column_type.parse(argument, names))


def _argument_type(column: Column, function: str, syntax: Json) -> ColumnType:
    column_type = column.type
    if function in _ORDERED:
        single = column_type.is_scalar or column_type.is_optional
        if not single or column_type.key.kind not in ("integer", "real"):
            raise MalformedError(
                f'Type mismatch: "{function}" operator may not be applied to column '
                f"{column.name} of type {column_type}.",
                syntax,
            )
        return column_type.bounded(1, 1)
    if column_type.is_scalar:
        return column_type
    if function == "includes":
        return column_type.bounded(0, column_type.n_max)
    if function == "excludes":
        return column_type.bounded(0, UNLIMITED)
    return column_type


def columns_json(table: TableSchema, json: Json) -> tuple[str, ...]:
    """An array of distinct column names; all of the table's for None."""
    if json is None:
        return table.all_columns()
    if not isinstance(json, list) or not all(isinstance(name, str) for name in json):
        raise MalformedError("array of distinct column names expected", json)
    return distinct_columns(table, json)


def distinct_columns(table: TableSchema, names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in table.columns and name not in ("_uuid", "_version"):
            raise MalformedError(f"{name} is not a valid column name", list(names))
    if len(set(names)) != len(names):
        raise MalformedError("array of distinct column names expected", list(names))
    return tuple(names)
