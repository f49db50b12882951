# SPDX-License-Identifier: Apache-2.0
"""The same random transactions, given to a stock ovsdb-server and to ours, end the same way.

Every insert names its UUID, so that results, updates and contents are compared as they are.
Of errors the tag is compared, which is what programs look at.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from heliograph.ovsdb import compact, monitor
from heliograph.ovsdb.database import Database
from heliograph.ovsdb.operations import Execution, WaitAgainError
from heliograph.ovsdb.schema import Schema
from heliograph.ovsdb.storage import Log, commit_record, encode_record

SCHEMA = compact.expand(
    "Fuzz",
    "1.0.0",
    """
Top root
  label: string
  one: @Leaf?
  many: @Leaf*
  named: {string: @Leaf}
  soft: ~Leaf*
  softone: ~Leaf?
Leaf index(name)
  const name: string
  child: @Leaf?
  number: 0..10
  option: integer?
  few: integer*3
  color: (red green blue)?
  texts: {string: string}
  counts: {string: integer} ephemeral
  volatile: integer ephemeral
Pair root index(a b)
  a b: 0..2
  items: string+
  flag: boolean
  ratio: real
Few root max(2)
  must: ~Pair
  ids: uuid*
""",
)
TABLES = list(SCHEMA["tables"])
UUIDS = {
    table: [f"{number:08x}-0000-4000-8000-00000000000{item}" for item in range(5)]
    for number, table in enumerate(TABLES)
}
KNOWN = {text for texts in UUIDS.values() for text in texts}
NAMES = {table: [f"{table}0", f"{table}1"] for table in TABLES}
COLUMNS = {table: list(SCHEMA["tables"][table]["columns"]) for table in TABLES}


def atoms(base: Any) -> st.SearchStrategy[Any]:
    if isinstance(base, str):
        base = {"type": base}
    kind = base["type"]
    if kind == "uuid":
        table = base.get("refTable", "Top")
        known = st.sampled_from(UUIDS[table]).map(lambda text: ["uuid", text])
        named = st.sampled_from(NAMES[table]).map(lambda name: ["named-uuid", name])
        return st.one_of(known, known, known, named)
    if "enum" in base:
        return st.sampled_from([*base["enum"][1], "black"])
    return {
        "integer": st.integers(-1, 11) if "minInteger" in base else st.integers(-3, 3),
        "boolean": st.booleans(),
        "real": st.sampled_from([0, 1, 0.5, -2.25]),
        "string": st.sampled_from(["", "a", "b", "\u00fc"]),
    }[kind]


def values(table: str, column: str) -> st.SearchStrategy[Any]:
    kind = SCHEMA["tables"][table]["columns"][column]["type"]
    if isinstance(kind, str):
        kind = {"key": kind}
    key = atoms(kind["key"])
    if "value" in kind:
        pairs = st.tuples(key, atoms(kind["value"])).map(list)
        proper = st.lists(pairs, max_size=3).map(lambda items: ["map", items])
    else:
        proper = st.one_of(key, st.lists(key, max_size=4).map(lambda items: ["set", items]))
        if kind.get("max", 1) == 1 and kind.get("min", 1) == 1:
            proper = st.one_of(key, key, key, proper)
    wrong = st.sampled_from([None, 7, "x", True, ["set", [1, 1]], ["map", [["a", "b"]]], []])
    return st.integers(0, 19).flatmap(lambda dice: wrong if dice == 0 else proper)


def rows(table: str, *, most: int = 4) -> st.SearchStrategy[Any]:
    columns = st.lists(
        st.sampled_from([*COLUMNS[table]] * 6 + ["nonsense"]), unique=True, max_size=most
    )
    return columns.flatmap(
        lambda names: st.fixed_dictionaries(
            {name: values(table, name) if name in COLUMNS[table] else st.just(0) for name in names}
        )
    )


def wheres(table: str) -> st.SearchStrategy[Any]:
    by_uuid = st.sampled_from(UUIDS[table]).map(lambda text: [["_uuid", "==", ["uuid", text]]])
    functions = ["==", "!=", "<", "<=", ">", ">=", "includes", "excludes", "like"]
    clause = st.sampled_from(COLUMNS[table]).flatmap(
        lambda column: st.tuples(
            st.just(column), st.sampled_from(functions), values(table, column)
        ).map(list)
    )
    clauses = st.lists(st.one_of(clause, clause, st.booleans()), max_size=2)
    return st.one_of(by_uuid, by_uuid, clauses)


def mutations(table: str) -> st.SearchStrategy[Any]:
    mutators = ["+=", "-=", "*=", "/=", "%=", "insert", "delete", "insert", "delete", "twist"]
    return st.lists(
        st.sampled_from(COLUMNS[table]).flatmap(
            lambda column: st.tuples(
                st.just(column), st.sampled_from(mutators), values(table, column)
            ).map(list)
        ),
        max_size=2,
    )


def columns(table: str) -> st.SearchStrategy[Any]:
    return st.lists(st.sampled_from([*COLUMNS[table], "_uuid"]), min_size=1, unique=True)


def operations(table: str) -> st.SearchStrategy[Any]:
    def operation(name: str, **members: Any) -> st.SearchStrategy[Any]:
        return st.fixed_dictionaries({"op": st.just(name), "table": st.just(table), **members})

    where = wheres(table)
    insert = operation("insert", uuid=st.sampled_from(UUIDS[table]), row=rows(table, most=7))
    named = operation(
        "insert",
        **{
            "uuid": st.sampled_from(UUIDS[table]),
            "row": rows(table),
            "uuid-name": st.sampled_from(NAMES[table]),
        },
    )
    return st.one_of(
        insert,
        insert,
        named,
        operation("update", where=where, row=rows(table)),
        operation("mutate", where=where, mutations=mutations(table)),
        operation("delete", where=where),
        operation("select", where=where, columns=columns(table)),
        columns(table).flatmap(
            lambda names: operation(
                "wait",
                timeout=st.just(0),
                where=where,
                columns=st.just(names),
                until=st.sampled_from(["==", "!="]),
                rows=st.lists(rows(table, most=1), max_size=1),
            )
        ),
    )


ANY_OPERATION = st.one_of(
    st.sampled_from(TABLES).flatmap(operations),
    st.sampled_from(TABLES).flatmap(operations),
    st.sampled_from(TABLES).flatmap(operations),
    st.sampled_from(
        [
            {"op": "abort"},
            {"op": "comment", "comment": "a"},
            {"op": "commit", "durable": True},
            {"op": "assert", "lock": "l"},
            {"op": "dance"},
            {"op": "delete", "table": "Leaf", "where": [], "extra": 1},
            {"op": "delete", "table": "Nowhere", "where": []},
            7,
        ]
    ),
)
TRANSACTIONS = st.lists(st.lists(ANY_OPERATION, min_size=1, max_size=6), min_size=1, max_size=8)


def plain(value: Any) -> Any:
    """The same value in one form whatever the order of sets, maps and rows."""
    if isinstance(value, dict):
        if "error" in value:
            return {"error": value["error"]}
        return {key: plain(item) for key, item in sorted(value.items()) if key != "_version"}
    if isinstance(value, list):
        if value[:1] == ["uuid"] and value[1] not in KNOWN:
            return ["uuid", "random"]  # a named-uuid that no insert gave a row
        items = [plain(item) for item in value]
        if len(items) == 2 and items[0] in ("set", "map"):
            return [items[0], sorted(items[1], key=json.dumps)]
        return items
    return value


def plain_results(results: list[Any]) -> list[Any]:
    flat = plain(results)
    for result in flat:
        if isinstance(result, dict) and "rows" in result:
            result["rows"].sort(key=json.dumps)
    return list(flat)


def places(operation: Any) -> int:
    """In how many places an operation may have an error of its own."""
    if not isinstance(operation, dict):
        return 1
    rows = [*operation.get("rows", []), operation.get("row", {})]
    clauses = [*operation.get("where", []), *operation.get("mutations", [])]
    return sum(map(len, rows)) + len(clauses)


def differences(ours: list[Any], theirs: list[Any], operations: list[Any]) -> list[Any]:
    """Operations with other results, and both results.

    Of several errors in one operation either may be reported: the stock server goes through
    columns in the order of their hashes.
    """
    mine, other = plain_results(ours), plain_results(theirs)
    for index, operation in enumerate(operations):
        failed = all("error" in (results[index] or {}) for results in (mine, other))
        if failed and places(operation) > 1:
            mine[index] = other[index]
    if len(mine) != len(other):
        return [ours, theirs]
    commit = [*operations, "commit"]
    return [
        (commit[index], ours[index], theirs[index])
        for index in range(len(mine))
        if mine[index] != other[index]
    ]


class Ours:
    """Our database, with the update2 of each transaction as a monitor of everything sees it."""

    def __init__(self) -> None:
        self.schema = Schema(SCHEMA)
        self.database = Database(self.schema)
        requests = {name: [{"columns": COLUMNS[name]}] for name in TABLES}
        self.spec = monitor.parse("monitor_cond", self.database, requests)
        self.log = [encode_record(SCHEMA)]

    def transact(self, operations: list[Any]) -> tuple[list[Any], Any]:
        try:
            outcome = Execution(self.database, lambda name: False, 0.0).run(operations)
        except WaitAgainError:
            pytest.fail("a wait with timeout 0 must not wait")
        if outcome.commit is None:
            return outcome.results, {}
        self.log.append(commit_record(self.schema, outcome.commit))
        encoded = self.spec.encoded(outcome.commit.changes)
        return outcome.results, json.loads(encoded) if encoded else {}

    def contents(self) -> Any:
        selects = [{"op": "select", "table": table, "where": []} for table in TABLES]
        return self.transact(selects)[0]

    def reloaded(self, path: Path) -> Database:
        """The database as the log of all its transactions gives it."""
        path.write_bytes(b"".join(self.log))
        log = Log(path, self.schema)
        try:
            return log.load()
        finally:
            log.close()


def derived(database: Database) -> Any:
    """The reference counts, back references and indexes."""
    tables = database.tables
    return {name: (table.strong, table.weak, table.indexes) for name, table in tables.items()}


def persistent(database: Database) -> Any:
    """The rows without what is not kept on disk."""
    return {
        name: {
            row: {c.name: data[c.name] for c in table.schema.columns.values() if c.persistent}
            for row, data in table.rows.items()
        }
        for name, table in database.tables.items()
    }


class Theirs:
    """The stock server over its socket."""

    def __init__(self, client: Any) -> None:
        self.client = client
        requests = {name: [{"columns": COLUMNS[name]}] for name in TABLES}
        client.request("monitor_cond", "Fuzz", "all", requests)

    def transact(self, operations: list[Any]) -> tuple[list[Any], Any]:
        self.client.send({"method": "transact", "params": ["Fuzz", *operations], "id": 1})
        update: Any = {}
        while (message := self.client.receive())["id"] != 1:
            update = message["params"][1]
        return message["result"], update

    def clear(self) -> None:
        delete = [{"op": "delete", "table": table, "where": []} for table in TABLES]
        self.transact(delete)

    def contents(self) -> Any:
        selects = [{"op": "select", "table": table, "where": []} for table in TABLES]
        return self.transact(selects)[0]


@pytest.fixture(scope="session")
def theirs(
    stock_server: Callable[[dict[str, Any]], Path], raw_client: Callable[[Path], Any]
) -> Theirs:
    return Theirs(raw_client(stock_server(SCHEMA)))


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(transactions=TRANSACTIONS)
@settings(
    max_examples=int(os.environ.get("HELIOGRAPH_FUZZ", "150")),
    deadline=None,
    derandomize="HELIOGRAPH_FUZZ" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
def test_same_results_as_stock(
    transactions: list[list[Any]], theirs: Theirs, directory: Path
) -> None:
    stock, ours = theirs, Ours()
    stock.clear()
    for transaction in transactions:
        before = plain_results(ours.contents())
        expected, expected_update = stock.transact(transaction)
        results, update = ours.transact(transaction)
        found = differences(results, expected, transaction)
        assert not found, json.dumps(found, indent=1)
        assert plain(update) == plain(expected_update), transaction
        after = plain_results(ours.contents())
        assert after == plain_results(stock.contents()), transaction
        if any(isinstance(result, dict) and "error" in result for result in results):
            assert after == before, "a failed transaction changed something"
    again = ours.reloaded(directory / "fuzz.db")
    assert persistent(again) == persistent(ours.database)
    assert derived(again) == derived(ours.database)
