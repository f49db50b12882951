# SPDX-License-Identifier: Apache-2.0
"""The same random transactions, given to a stock ovsdb-server and to ours, end the same way.

Every insert names its UUID, so that results, updates and contents are compared as they are.
Of errors the tag is compared, which is what programs look at. Weak references are compared in
test_service_as_stock.py: ovsdb-server 3.1 leaves some to deleted rows in a row that the same
transaction changed, and then the two cannot agree any more.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliograph.ovsdb import compact, monitor
from heliograph.ovsdb.database import Database
from heliograph.ovsdb.operations import Execution, WaitAgainError
from heliograph.ovsdb.replica import Replica
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
  ids: uuid*
""",
)
TABLES = list(SCHEMA["tables"])
UUIDS = {
    table: [f"{number:08x}-0000-4000-8000-00000000000{item}" for item in range(5)]
    for number, table in enumerate(TABLES)
}
ERRORS = [
    "syntax error",
    "unknown column",
    "constraint violation",
    "referential integrity violation",
    "duplicate uuid",
    "timed out",
]
KNOWN = {text for texts in UUIDS.values() for text in texts}
NAMES = {table: [f"{table}0", f"{table}1"] for table in TABLES}
COLUMNS = {table: list(SCHEMA["tables"][table]["columns"]) for table in TABLES}


class Writer:
    """Writes random transactions, most of them such that they can succeed."""

    def __init__(self, seed: int, database: Database) -> None:
        self.random = random.Random(seed)
        self.database = database

    def rarely(self, one_in: int = 40) -> bool:
        return self.random.randrange(one_in) == 0

    def uuid(self, table: str) -> Any:
        if self.rarely(12):
            return ["named-uuid", self.random.choice(NAMES[table])]
        known = list(self.database.tables[table].rows)
        return [
            "uuid",
            self.random.choice(UUIDS[table] if self.rarely(6) else known or UUIDS[table]),
        ]

    def atom(self, base: Any) -> Any:
        base = {"type": base} if isinstance(base, str) else base
        pick = self.random.choice
        if base["type"] == "uuid":
            return self.uuid(base.get("refTable", "Top"))
        if "enum" in base:
            return "black" if self.rarely() else pick(base["enum"][1])
        if base["type"] == "integer":
            low = base.get("minInteger", -3)
            return low - 1 if self.rarely() else pick([low, low + 1, low + 2])
        pool: dict[str, list[Any]] = {
            "boolean": [True, False],
            "real": [0, 1, 0.5, -2.25],
            "string": ["", "a", "b", "\u00fc"],
        }
        return pick(pool[base["type"]])

    def value(self, table: str, column: str) -> Any:
        if self.rarely(60):
            wrong = [None, 7, "x", True, ["set", [1, 1]], ["map", [["a", "b"]]], [], ["uuid", "x"]]
            return self.random.choice(wrong)
        kind = SCHEMA["tables"][table]["columns"][column]["type"]
        kind = {"key": kind} if isinstance(kind, str) else kind
        low, high = kind.get("min", 1), kind.get("max", 1)
        count = self.random.randint(low, 4 if high == "unlimited" else high)
        keys = [self.atom(kind["key"]) for _ in range(count)]
        if not self.rarely():
            keys = list({json.dumps(key): key for key in keys}.values())
        if "value" in kind:
            return ["map", [[key, self.atom(kind["value"])] for key in keys]]
        return keys[0] if len(keys) == 1 and not self.rarely(3) else ["set", keys]

    def row(self, table: str, share: float) -> Any:
        columns = [name for name in COLUMNS[table] if self.random.random() < share]
        if not self.rarely(8):  # immutable, so only of use in an insert
            columns = [name for name in columns if name != "name"] + ["name"] * (
                share > 0.5 and table == "Leaf"
            )
        row = {name: self.value(table, name) for name in columns}
        return {**row, "nonsense": 0} if self.rarely(80) else row

    def where(self, table: str) -> Any:
        if not self.rarely(4):
            return [["_uuid", "==", self.uuid(table)]]
        clauses: list[Any] = []
        for _ in range(self.random.randrange(3)):
            column = self.random.choice(COLUMNS[table])
            functions = ["==", "!=", "includes", "excludes"] * 3 + ["<", "<=", ">", ">=", "like"]
            clause = [column, self.random.choice(functions), self.value(table, column)]
            clauses.append(self.random.random() < 0.5 if self.rarely(8) else clause)
        return clauses

    def mutation(self, table: str) -> Any:
        column = self.random.choice(COLUMNS[table])
        kind = SCHEMA["tables"][table]["columns"][column]["type"]
        key = kind["key"] if isinstance(kind, dict) else kind
        number = (key if isinstance(key, str) else key["type"]) in ("integer", "real")
        composite = isinstance(kind, dict) and ("min" in kind or "max" in kind)
        mutators = ["+=", "-=", "*=", "/=", "%="] if number else []
        if composite:
            mutators = [*mutators, "insert", "delete", "insert", "delete", "insert", "delete"]
        if not mutators or self.rarely():
            mutators = ["+=", "insert", "twist"]
        mutator = self.random.choice(mutators)
        if number and mutator.endswith("="):
            operands = [1, 2, 2, -1, 3] + (
                [0] if mutator != "*=" else []
            )  # *= 0 kills the stock one
            return [column, mutator, self.random.choice(operands)]
        return [column, mutator, self.value(table, column)]

    def columns(self, table: str) -> list[str]:
        names = [*COLUMNS[table], "_uuid"]
        return self.random.sample(names, self.random.randint(1, len(names)))

    def operation(self) -> Any:
        if self.rarely(30):
            return self.random.choice(ODD_OPERATIONS)
        table = self.random.choice(TABLES)
        head = {"table": table}
        match self.random.randrange(12):
            case 0 | 1 | 2 | 3:
                uuid = self.random.choice(UUIDS[table])
                insert = {"op": "insert", **head, "uuid": uuid, "row": self.row(table, 0.6)}
                name = self.random.choice(NAMES[table])
                return insert if self.rarely(3) else {**insert, "uuid-name": name}
            case 4 | 5 | 6:
                where = self.where(table)
                return {"op": "update", **head, "where": where, "row": self.row(table, 0.3)}
            case 7 | 8:
                changes = [self.mutation(table) for _ in range(self.random.randint(0, 2))]
                return {"op": "mutate", **head, "where": self.where(table), "mutations": changes}
            case 9:
                return {"op": "delete", **head, "where": self.where(table)}
            case 10:
                where, columns = self.where(table), self.columns(table)
                return {"op": "select", **head, "where": where, "columns": columns}
        return {
            "op": "wait",
            **head,
            "timeout": 0,
            "where": self.where(table),
            "columns": self.columns(table),
            "until": self.random.choice(["!=", "!=", "!=", "=="]),
            "rows": [self.row(table, 0.2)] if self.rarely(2) else [],
        }

    def transaction(self) -> list[Any]:
        operations = [self.operation() for _ in range(self.random.choice([1, 1, 1, 2, 3, 5]))]
        if self.rarely(3):
            operations = [*self.planting(), *operations][: self.random.choice([2, 2, 3, 6])]
        return operations

    def planting(self) -> list[Any]:
        """A Leaf and a Top that refers to it, without which it would be garbage."""
        free = [row for row in UUIDS["Leaf"] if row not in self.database.tables["Leaf"].rows]
        leaf, top = self.random.choice(free or UUIDS["Leaf"]), self.random.choice(UUIDS["Top"])
        reference = ["uuid", leaf]
        row = {**self.row("Leaf", 0.3), "name": self.random.choice(["a", "b", "c", "d", "e"])}
        insert = {"op": "insert", "table": "Leaf", "uuid": leaf, "row": row}
        if top in self.database.tables["Top"].rows:
            where, change = [["_uuid", "==", ["uuid", top]]], ["many", "insert", reference]
            refer = {"op": "mutate", "table": "Top", "where": where, "mutations": [change]}
        else:
            named: Any = {"named": ["map", [["a", reference]]]}
            refer = {"op": "insert", "table": "Top", "uuid": top, "row": named}
        return [insert, refer]


ODD_OPERATIONS = [
    {"op": "abort"},
    {"op": "comment", "comment": "a"},
    {"op": "commit", "durable": True},
    {"op": "assert", "lock": "l"},
    {"op": "dance"},
    {"op": "delete", "table": "Leaf", "where": [], "extra": 1},
    {"op": "delete", "table": "Nowhere", "where": []},
    7,
]


def plain(value: Any) -> Any:
    """The same value in one form whatever the order of sets, maps and rows."""
    if isinstance(value, dict):
        if "error" in value:
            return {"error": value["error"]}
        return {key: plain(item) for key, item in sorted(value.items()) if key != "_version"}
    if isinstance(value, float):
        return float(f"{value:.15g}")  # as many digits as the stock server writes
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
        self.replica = Replica(self.schema, {name: tuple(COLUMNS[name]) for name in TABLES})
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

    def replica_is_current(self) -> bool:
        """Whether a client that followed the updates has what the database has."""
        copies = {
            name: {str(uuid): dict(row.data()) for uuid, row in rows.items()}
            for name, rows in self.replica.tables.items()
        }
        return copies == {
            name: {
                row: {column: data[column] for column in COLUMNS[name]}
                for row, data in self.database.tables[name].rows.items()
            }
            for name in TABLES
        }

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
        while (message := self.client.receive()) is not None and message["id"] != 1:
            update = message["params"][1]
        assert message, f"the stock server ended at {json.dumps(operations)}"
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


def hold_side_by_side(seed: int, stock: Theirs, directory: Path) -> Counter[str]:
    """One database's life on both servers; returns what happened in it."""
    writer, happened = Writer(seed, (ours := Ours()).database), Counter[str]()
    stock.clear()
    for _ in range(25):
        transaction = writer.transaction()
        before = plain_results(ours.contents())
        expected, expected_update = stock.transact(transaction)
        results, update = ours.transact(transaction)
        found = differences(results, expected, transaction)
        assert not found, f"seed {seed}: {json.dumps(found, indent=1)}"
        assert plain(update) == plain(expected_update), f"seed {seed}: {transaction}"
        ours.replica.apply(update)
        assert ours.replica_is_current(), f"seed {seed}: {transaction}"
        after = plain_results(ours.contents())
        assert after == plain_results(stock.contents()), f"seed {seed}: {transaction}"
        errors = [r["error"] for r in results if isinstance(r, dict) and "error" in r]
        if errors:
            assert after == before, f"seed {seed}: a failed transaction changed something"
        happened.update(errors)
        happened.update(next(iter(row)) for rows in update.values() for row in rows.values())
    again = ours.reloaded(directory / "fuzz.db")
    assert persistent(again) == persistent(ours.database), f"seed {seed}"
    assert derived(again) == derived(ours.database), f"seed {seed}"
    return happened


def test_same_results_as_stock(theirs: Theirs, directory: Path) -> None:
    """HELIOGRAPH_FUZZ=5000 looks further, from a new place each time."""
    wanted = os.environ.get("HELIOGRAPH_FUZZ")
    start = random.randrange(1 << 32) if wanted else 0
    happened: Counter[str] = Counter()
    for seed in range(start, start + int(wanted or "60")):
        happened += hold_side_by_side(seed, theirs, directory)
    # That nothing differs is worth as much as what was tried.
    for kind in ("insert", "modify", "delete", *ERRORS):
        assert happened[kind] > 3, (kind, happened)
