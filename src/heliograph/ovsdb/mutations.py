# SPDX-License-Identifier: Apache-2.0
"""Mutations of columns (RFC 7047 section 5.1, <mutation>)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from heliograph.ovsdb.database import Row
from heliograph.ovsdb.errors import ConstraintError, Json, MalformedError, OvsdbError
from heliograph.ovsdb.schema import Column, TableSchema
from heliograph.ovsdb.types import UNLIMITED, Atom, ColumnType, Datum, NameLookup, sorted_map

Number: TypeAlias = int | float


def _divide(left: Number, right: Number) -> Number:
    if right == 0:
        raise OvsdbError("domain error", "Division by zero.")
    if isinstance(left, int) and isinstance(right, int):
        # RFC 7047 section 5.1: integer division truncates towards zero, as in C.
        quotient = abs(left) // abs(right)
        return quotient if (left < 0) == (right < 0) else -quotient
    return left / right


def _remainder(left: Number, right: Number) -> Number:
    return left - right * _divide(left, right)


_ARITHMETIC: dict[str, Callable[[Number, Number], Number]] = {
    "+=": lambda left, right: left + right,
    "-=": lambda left, right: left - right,
    "*=": lambda left, right: left * right,
    "/=": _divide,
    "%=": _remainder,
}


@dataclass(frozen=True)
class Mutation:
    """One <mutation>, its argument parsed."""

    column: Column
    mutator: str
    argument: Datum

    def apply(self, row: Row) -> None:
        """Assigns the mutated column of `row`. Raises OvsdbError for a result out of range."""
        datum = row[self.column.name]
        if self.mutator == "insert":
            new = _insert(datum, self.argument)
        elif self.mutator == "delete":
            new = _delete(datum, self.argument)
        else:
            new = self._calculate(datum)
        self.column.type.check_count(new)
        row[self.column.name] = new

    def _calculate(self, datum: Datum) -> Datum:
        function = _ARITHMETIC[self.mutator]
        operand = _number(next(iter(self.argument)))
        results = [function(_number(atom), operand) for atom in datum]
        for result in results:
            _check_range(self.column.type, self.mutator, result)
        self.column.type.key.check(results)
        unique = sorted(set(results))
        if len(unique) != len(results):
            raise ConstraintError(
                f'Result of "{self.mutator}" operation on column {self.column.name} has duplicates.'
            )
        return tuple(unique)


def _number(atom: Atom) -> Number:
    assert isinstance(atom, int | float)
    return atom


def _check_range(column_type: ColumnType, mutator: str, result: Number) -> None:
    integer = column_type.key.kind == "integer"
    if (integer and not -(1 << 63) <= result < 1 << 63) or not math.isfinite(result):
        raise OvsdbError("range error", f'Result of "{mutator}" operation is out of range.')


def _insert(datum: Datum, argument: Datum) -> Datum:
    if isinstance(datum, dict) and isinstance(argument, dict):
        return sorted_map({**argument, **datum})  # keys already present keep their values
    return tuple(sorted(set(datum).union(argument)))


def _delete(datum: Datum, argument: Datum) -> Datum:
    if not isinstance(datum, dict):
        gone = set(argument)
        return tuple(atom for atom in datum if atom not in gone)
    if isinstance(argument, dict):  # pairs go only if the value is equal too
        return {k: v for k, v in datum.items() if k not in argument or argument[k] != v}
    gone = set(argument)
    return {k: v for k, v in datum.items() if k not in gone}


def parse(table: TableSchema, json: Json, names: NameLookup | None) -> list[Mutation]:
    """Raises OvsdbError for unknown columns and mutators, wrong types, immutable columns."""
    if not isinstance(json, list):
        raise MalformedError("array expected", json)
    return [_mutation(table, item, names) for item in json]


def _mutation(table: TableSchema, json: Json, names: NameLookup | None) -> Mutation:
    match json:
        case [str(column_name), str(mutator), argument]:
            column = table.column(column_name, json)
        case _:
            raise MalformedError("Parse error in mutation.", json)
    if not column.mutable:
        raise ConstraintError(
            f"Cannot mutate immutable column {column_name} in table {table.name}.", json
        )
    if mutator in _ARITHMETIC:
        _check_arithmetic(column, mutator, json)
        scalar = ColumnType(column.type.key.without_constraints(), None, 1, 1)
        return Mutation(column, mutator, scalar.parse(argument, names))
    if mutator not in ("insert", "delete"):
        raise OvsdbError("unknown mutator", f"No mutator named {mutator}.", json)
    if column.type.is_scalar:
        raise _mismatch(column, mutator, json)
    if mutator == "insert":
        relaxed = column.type.bounded(0, column.type.n_max)
        return Mutation(column, mutator, relaxed.parse(argument, names))
    return Mutation(column, mutator, _delete_argument(column.type, argument, names))


def _check_arithmetic(column: Column, mutator: str, json: Json) -> None:
    kind = column.type.key.kind
    wrong_kind = kind not in ("integer", "real") or (mutator == "%=" and kind == "real")
    if column.type.is_map or wrong_kind:
        raise _mismatch(column, mutator, json)


def _delete_argument(column_type: ColumnType, json: Json, names: NameLookup | None) -> Datum:
    # RFC 7047 section 5.1: from a map, either pairs or keys may be deleted.
    try:
        return column_type.relaxed.parse(json, names)
    except OvsdbError:
        if not column_type.is_map:
            raise
        return ColumnType(column_type.key, None, 0, UNLIMITED).parse(json, names)


def _mismatch(column: Column, mutator: str, json: Json) -> OvsdbError:
    return MalformedError(
        f'Type mismatch: "{mutator}" mutator may not be applied to column {column.name} '
        f"of type {column.type}.",
        json,
    )
