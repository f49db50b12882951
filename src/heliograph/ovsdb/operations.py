# SPDX-License-Identifier: Apache-2.0
"""The operations of a transaction (RFC 7047 section 5.2), one function each.

A table says which members each operation takes, so they are all checked before it runs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from heliograph.ovsdb import conditions, mutations
from heliograph.ovsdb.database import Commit, Database, Row, Table
from heliograph.ovsdb.errors import ConstraintError, Json, MalformedError, OvsdbError
from heliograph.ovsdb.transaction import Transaction
from heliograph.ovsdb.types import is_identifier, is_uuid

Members = dict[str, Json]


class WaitAgainError(Exception):
    """A "wait" is not satisfied yet; try the transaction again when `table` changes."""

    def __init__(self, table: str, timeout: float | None) -> None:
        super().__init__(table)
        self.table = table
        self.timeout = timeout  # milliseconds since the request; None = for ever


@dataclass
class Outcome:
    """What a transaction came to: RFC 7047 section 4.1.3 results, and the commit if any."""

    results: list[Json]
    commit: Commit | None


@dataclass
class Execution:
    """One attempt at a transaction; `elapsed` is the time since it was requested, in ms."""

    database: Database
    holds_lock: Callable[[str], bool]
    elapsed: float
    transaction: Transaction = field(init=False)
    comments: list[str] = field(default_factory=list)
    _names: dict[str, str] = field(default_factory=dict)
    _inserted: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.transaction = Transaction(self.database)

    def run(self, operations: Sequence[Json]) -> Outcome:
        """Carries out the operations. Raises WaitAgainError, having changed nothing."""
        try:
            return self._run(operations)
        except BaseException:
            self.transaction.abort()
            raise

    def _run(self, operations: Sequence[Json]) -> Outcome:
        results: list[Json] = []
        for number, operation in enumerate(operations, 1):
            where = f"ovsdb operation {number} of {len(operations)}"
            try:
                results.append(self._operate(operation, where))
            except OvsdbError as fault:
                self.transaction.abort()
                results.append(fault.to_json())
                # RFC 7047 section 4.1.3: null for the operations after the one that failed.
                results += [None] * (len(operations) - number)
                return Outcome(results, None)
        try:
            commit = self.transaction.commit()
        except OvsdbError as fault:
            # RFC 7047 section 4.1.3: one result more than operations if the commit fails.
            return Outcome([*results, fault.to_json()], None)
        commit.comment = "\n".join(self.comments)
        return Outcome(results, commit if commit.changes else None)

    def _operate(self, operation: Json, where: str) -> Json:
        if not isinstance(operation, dict):
            raise MalformedError(f"Parsing {where} failed: Object expected.", operation)
        name = operation.get("op")
        kind = _OPERATIONS.get(name) if isinstance(name, str) else None
        if kind is None:
            reason = f'No operation "{name}"' if "op" in operation else "Required 'op' member"
            raise MalformedError(f"Parsing {where} failed: {reason}.", operation)
        for member, wanted in kind.members.items():
            if member not in operation:
                if not wanted.optional:
                    reason = f"Required '{member}' member is missing."
                    raise MalformedError(f"Parsing {where} failed: {reason}", operation)
            elif not wanted.accepts(operation[member]):
                reason = f"Type mismatch for member '{member}'."
                raise MalformedError(f"Parsing {where} failed: {reason}", operation)
        for member in operation:
            if member not in kind.members and member != "op":
                reason = f"Member '{member}' is present but not allowed here."
                raise MalformedError(f"Parsing {where} failed: {reason}", operation)
        if kind.writes and not self.database.writable:
            raise OvsdbError(
                "not allowed",
                f"{name} operation not allowed in reserved database {self.database.name}",
            )
        return kind.function(self, operation)

    def named(self, name: str) -> str:
        """The UUID of the row that `uuid-name` stands for, inserted before or after."""
        if name not in self._names:
            self._names[name] = str(uuid.uuid4())
        return self._names[name]

    def table(self, operation: Members) -> Table:
        name = operation["table"]
        if name not in self.database.tables:
            raise MalformedError(f"No table named {name}.", operation)
        return self.database.tables[name]

    def condition(self, table: Table, operation: Members) -> conditions.Condition:
        return conditions.parse(table.schema, operation["where"], self.named)

    def parse_row(self, table: Table, json: Json) -> Row:
        """The columns given in a <row>. Raises OvsdbError."""
        if not isinstance(json, dict):
            raise MalformedError("row must be JSON object", json)
        column = table.schema.column
        return {
            name: column(name, json).type.parse(value, self.named) for name, value in json.items()
        }

    def new_uuid(self, table: Table, operation: Members) -> str:
        """The UUID for an insert. Raises OvsdbError if the one asked for is not free."""
        row: str | None = operation.get("uuid")
        name: str | None = operation.get("uuid-name")
        if row is not None:
            if not is_uuid(row):
                raise MalformedError("bad uuid", row)
            row = row.lower()
            if not self.transaction.may_insert(table, row):
                raise OvsdbError(
                    "duplicate uuid",
                    f"A row {row} exists in table {table.name} or this transaction deleted it.",
                    row,
                )
        if name is None:
            return row or str(uuid.uuid4())
        if name in self._inserted:
            raise OvsdbError(
                "duplicate uuid-name", f'An earlier "insert" has the uuid-name {name}.', name
            )
        self._inserted.add(name)
        if row is not None:
            self._names[name] = row
        return self.named(name)


def _insert(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    row = run.new_uuid(table, operation)
    given = run.parse_row(table, operation["row"])
    for name, datum in table.schema.defaults.items():
        # A default may break a constraint too, so a column left out is checked as well.
        if name not in given and datum:
            table.schema.columns[name].type.check(datum)
    run.transaction.insert(table, row, {**table.schema.defaults, **given})
    return {"uuid": ["uuid", row]}


def _select(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    condition = run.condition(table, operation)
    columns = conditions.columns_json(table.schema, operation.get("columns"))
    types = [(name, table.schema.column(name).type) for name in columns]
    rows = [table.rows[row] for row in condition.select(table)]
    if "_uuid" not in columns:  # then rows may be equal, and each is given once
        rows = list({_identity(row, columns): row for row in rows}.values())
    return {"rows": [{name: kind.to_json(row[name]) for name, kind in types} for row in rows]}


def _update(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    given = run.parse_row(table, operation["row"])
    for name in given:
        if not table.schema.column(name).mutable:
            raise ConstraintError(
                f"Cannot update immutable column {name} in table {table.name}.", operation
            )
    count = 0
    for row in run.condition(table, operation).select(table):
        run.transaction.modify(table, row).update(given)
        count += 1
    return {"count": count}


def _mutate(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    changes = mutations.parse(table.schema, operation["mutations"], run.named)
    count = 0
    for row in run.condition(table, operation).select(table):
        data = run.transaction.modify(table, row)
        for mutation in changes:
            mutation.apply(data)
        count += 1
    return {"count": count}


def _delete(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    count = 0
    for row in run.condition(table, operation).select(table):
        run.transaction.delete(table, row)
        count += 1
    return {"count": count}


def _wait(run: Execution, operation: Members) -> Json:
    table = run.table(operation)
    timeout = operation.get("timeout")
    until = operation["until"]
    if until not in ("==", "!="):
        raise MalformedError('"until" must be "==" or "!="', operation)
    condition = run.condition(table, operation)
    columns = conditions.columns_json(table.schema, operation.get("columns"))
    expected = {
        _identity(_expected_row(run, table, columns, row), columns) for row in operation["rows"]
    }
    actual = {_identity(table.rows[row], columns) for row in condition.select(table)}
    if (expected == actual) == (until == "=="):
        return {}
    if timeout is None or run.elapsed < timeout:
        raise WaitAgainError(table.name, timeout)
    if round(run.elapsed):
        raise OvsdbError("timed out", f'"wait" timed out after {run.elapsed:.0f} ms')
    raise OvsdbError("timed out", '"where" clause test failed')


def _expected_row(run: Execution, table: Table, columns: Sequence[str], json: Json) -> Row:
    row: Row = {name: table.schema.column(name).type.default for name in columns}
    return {**row, **run.parse_row(table, json)}  # others than `columns` are not compared


def _identity(row: Row, columns: Sequence[str]) -> tuple[object, ...]:
    data = (row[name] for name in columns)
    return tuple(tuple(datum.items()) if isinstance(datum, dict) else datum for datum in data)


def _commit(run: Execution, operation: Members) -> Json:
    # RFC 7047 section 5.2.7: a "durable" commit is on disk before the reply; here every one is.
    return {}


def _abort(run: Execution, operation: Members) -> Json:
    raise OvsdbError("aborted", "aborted by request")


def _comment(run: Execution, operation: Members) -> Json:
    run.comments.append(operation["comment"])
    return {}


def _assert(run: Execution, operation: Members) -> Json:
    if not run.holds_lock(operation["lock"]):
        raise OvsdbError("not owner", f"Asserted lock {operation['lock']} not held.")
    return {}


class _Member(NamedTuple):
    accepts: Callable[[Json], bool]
    optional: bool = False


def _is(*types: type) -> Callable[[Json], bool]:
    return lambda value: type(value) in types


class _Operation(NamedTuple):
    function: Callable[[Execution, Members], Json]
    members: dict[str, _Member]
    writes: bool = False


_TABLE = _Member(is_identifier)
_ROW = _Member(_is(dict))
_ARRAY = _Member(_is(list))
_OPTIONAL_ARRAY = _Member(_is(list), optional=True)
_NAME = _Member(is_identifier, optional=True)
_UUID = _Member(_is(str), optional=True)
_WHERE = {"table": _TABLE, "where": _ARRAY}
_OPERATIONS = {
    "insert": _Operation(
        _insert, {"table": _TABLE, "row": _ROW, "uuid-name": _NAME, "uuid": _UUID}, writes=True
    ),
    "select": _Operation(_select, {**_WHERE, "columns": _OPTIONAL_ARRAY}),
    "update": _Operation(_update, {**_WHERE, "row": _ROW}, writes=True),
    "mutate": _Operation(_mutate, {**_WHERE, "mutations": _ARRAY}, writes=True),
    "delete": _Operation(_delete, _WHERE, writes=True),
    "wait": _Operation(
        _wait,
        {
            **_WHERE,
            "timeout": _Member(_is(int, float), optional=True),
            "columns": _OPTIONAL_ARRAY,
            "until": _Member(_is(str)),
            "rows": _ARRAY,
        },
    ),
    "commit": _Operation(_commit, {"durable": _Member(_is(bool))}),
    "abort": _Operation(_abort, {}),
    "comment": _Operation(_comment, {"comment": _Member(_is(str))}),
    "assert": _Operation(_assert, {"lock": _Member(is_identifier)}),
}
