# SPDX-License-Identifier: Apache-2.0
"""What monitors see of changes (RFC 7047 sections 4.1.5 and 4.1.6, and ovsdb-server(7) for
the conditional kinds).

A specification is immutable and comparable: monitors of equal specification share the text
made of a change, so a second client that watches the same costs next to nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from heliograph.ovsdb import conditions
from heliograph.ovsdb.conditions import ALWAYS, Condition
from heliograph.ovsdb.database import Changes, Database, Row
from heliograph.ovsdb.errors import Json, MalformedError
from heliograph.ovsdb.schema import TableSchema
from heliograph.ovsdb.types import ColumnType
from heliograph.ovsdb.wire import encode

Kind = Literal["initial", "insert", "delete", "modify"]
KINDS: tuple[Kind, ...] = ("initial", "insert", "delete", "modify")
ZERO_TRANSACTION = "00000000-0000-0000-0000-000000000000"

# method of the request -> method of its notifications
NOTIFICATIONS = {
    "monitor": "update",
    "monitor_cond": "update2",
    "monitor_cond_since": "update3",
}


@dataclass(frozen=True)
class MonitoredColumn:
    """A column and the kinds of change it is wanted for."""

    name: str
    type: ColumnType
    kinds: frozenset[Kind]


@dataclass(frozen=True)
class MonitoredTable:
    """One table of a monitor, with its condition."""

    name: str
    columns: tuple[MonitoredColumn, ...]
    kinds: frozenset[Kind]
    condition: Condition = ALWAYS


@dataclass(frozen=True)
class Spec:
    """What one monitor wants; `method` is the request that made it."""

    method: str
    database: str
    tables: tuple[MonitoredTable, ...]
    requests: dict[str, Json]  # as sent, by table
    text: bytes  # the whole as JSON: equal texts, equal updates

    def encoded(self, changes: Changes) -> bytes:
        """The <table-updates> for `changes` as JSON text; empty if the monitor sees nothing."""
        if self.text not in changes.encoded:
            updates = self._updates(changes)
            changes.encoded[self.text] = encode(updates) if updates else b""
        return changes.encoded[self.text]

    def initial(self, database: Database) -> Json:
        """The <table-updates> for the rows there are when the monitor begins."""
        result: dict[str, Json] = {}
        for table in self.tables:
            if "initial" not in table.kinds:
                continue
            rows = {
                row: self._row(table, "initial", None, data)
                for row, data in database.tables[table.name].rows.items()
                if table.condition.matches(data)
            }
            if rows:
                result[table.name] = rows
        return result

    def _updates(self, changes: Changes) -> Json:
        result: dict[str, Json] = {}
        for table in self.tables:
            rows: dict[str, Json] = {}
            for row, (old, new) in changes.get(table.name, {}).items():
                update = self.row_update(table, old, new, table.condition)
                if update is not None:
                    rows[row] = update
            if rows:
                result[table.name] = rows
        return result

    def row_update(
        self, table: MonitoredTable, old: Row | None, new: Row | None, before: Condition
    ) -> Json:
        """One <row-update>; `before` is the condition by which `old` was seen."""
        seen = old is not None and before.matches(old)
        visible = new is not None and table.condition.matches(new)
        if not seen and not visible:
            return None
        kind: Kind = "modify" if seen and visible else "insert" if visible else "delete"
        return self._row(table, kind, old, new) if kind in table.kinds else None

    def _row(self, table: MonitoredTable, kind: Kind, old: Row | None, new: Row | None) -> Json:
        if self.method == "monitor":
            return _row_update(table, kind, old, new)
        return _row_update2(table, kind, old, new)


def _row_update(table: MonitoredTable, kind: Kind, old: Row | None, new: Row | None) -> Json:
    # RFC 7047 section 4.1.6, <row-update>: "old" has all columns of a deleted row, only the
    # changed ones of a modified row; "new" all columns.
    wanted = [column for column in table.columns if kind in column.kinds]
    update: dict[str, Json] = {}
    if kind == "modify":
        assert old is not None and new is not None
        changed = [column for column in wanted if old[column.name] != new[column.name]]
        if not changed:
            return None
        update["old"] = {c.name: c.type.to_json(old[c.name]) for c in changed}
    elif kind == "delete":
        assert old is not None
        return {"old": {c.name: c.type.to_json(old[c.name]) for c in wanted}}
    assert new is not None
    update["new"] = {c.name: c.type.to_json(new[c.name]) for c in wanted}
    return update


def _row_update2(table: MonitoredTable, kind: Kind, old: Row | None, new: Row | None) -> Json:
    # ovsdb-server(7), "Update2 notification": defaults are left out, a modification is a diff.
    if kind == "delete":
        return {"delete": None}
    assert new is not None
    wanted = [column for column in table.columns if kind in column.kinds]
    if kind == "modify":
        assert old is not None
        diff = {
            c.name: c.type.to_json(c.type.diff(old[c.name], new[c.name]))
            for c in wanted
            if old[c.name] is not new[c.name] and old[c.name] != new[c.name]
        }
        return {"modify": diff} if diff else None
    return {
        kind: {c.name: c.type.to_json(new[c.name]) for c in wanted if new[c.name] != c.type.default}
    }


def condition_update(old: Spec, new: Spec, database: Database) -> Json:
    """The <table-updates2> for a change of conditions from `old` to `new`."""
    result: dict[str, Json] = {}
    for before, after in zip(old.tables, new.tables, strict=True):
        if old.requests[after.name] == new.requests[after.name]:
            continue
        rows: dict[str, Json] = {}
        for row, data in database.tables[after.name].rows.items():
            update = new.row_update(after, data, data, before.condition)
            if update is not None:
                rows[row] = update
        if rows:
            result[after.name] = rows
    return result


def parse(method: str, database: Database, requests: Json) -> Spec:
    """The specification in the third parameter of monitor, monitor_cond, monitor_cond_since.

    Raises OvsdbError.
    """
    if not isinstance(requests, dict):
        raise MalformedError("<monitor-requests> must be a JSON object", requests)
    tables = []
    for name, request in requests.items():
        schema = database.schema.table(name)
        tables.append(_table(method, schema, request))
    text = encode([method, database.name, requests])
    return Spec(method, database.name, tuple(tables), requests, text)


def _table(method: str, schema: TableSchema, json: Json) -> MonitoredTable:
    requests = _listed(json)
    columns: list[MonitoredColumn] = []
    condition = ALWAYS
    for request in requests:
        if not isinstance(request, dict):
            raise MalformedError("<monitor-request> must be a JSON object", request)
        allowed = {"columns", "select"} | ({"where"} if method != "monitor" else set())
        if extra := request.keys() - allowed:
            raise MalformedError(f"unknown member {min(extra)} in <monitor-request>", request)
        kinds = _kinds(request.get("select", {}))
        if "columns" in request:
            names: Iterable[str] = conditions.columns_json(schema, request["columns"])
        else:
            names = ("_version", *schema.columns)  # RFC 7047 section 4.1.5: all but _uuid
        columns += [MonitoredColumn(name, schema.column(name).type, kinds) for name in names]
        if "where" in request:
            condition = conditions.parse(schema, request["where"], every=False)
    conditions.distinct_columns(schema, [column.name for column in columns])
    kinds = frozenset[Kind]().union(*(column.kinds for column in columns))
    if not columns and requests:
        kinds = frozenset(KINDS)  # a request for no column still tells of rows coming and going
    return MonitoredTable(schema.name, tuple(columns), kinds, condition)


def _kinds(json: Json) -> frozenset[Kind]:
    if not isinstance(json, dict) or not all(
        name in KINDS and isinstance(wanted, bool) for name, wanted in json.items()
    ):
        raise MalformedError("<monitor-select> has booleans initial, insert, delete, modify", json)
    return frozenset(kind for kind in KINDS if json.get(kind, True))


def recondition(spec: Spec, database: Database, requests: Json) -> Spec:
    """`spec` with the conditions that monitor_cond_change sets. Raises OvsdbError."""
    if not isinstance(requests, dict):
        raise MalformedError("<monitor-cond-update-requests> must be a JSON object", requests)
    merged = dict(spec.requests)
    for name, update in requests.items():
        if name not in merged:
            raise MalformedError(f"table {name} is not in this monitor", requests)
        for request in _listed(update):
            if not isinstance(request, dict) or request.keys() - {"where", "columns"}:
                raise MalformedError("<monitor-cond-update-request> has a member where", request)
            if "where" in request:
                where = request["where"]
                merged[name] = [{**earlier, "where": where} for earlier in _listed(merged[name])]
    return parse(spec.method, database, merged)


def _listed(requests: Json) -> list[Json]:
    # RFC 7047 section 4.1.5 has an array of requests; a single one is as good.
    return requests if isinstance(requests, list) else [requests]
