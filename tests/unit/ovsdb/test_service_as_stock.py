# SPDX-License-Identifier: Apache-2.0
"""Conversations of two clients, held with a stock ovsdb-server and with our service: what each
client receives, and in which order, is the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from heliograph.ovsdb import compact
from heliograph.ovsdb.database import Database
from heliograph.ovsdb.schema import Schema
from heliograph.ovsdb.service import Service
from heliograph.ovsdb.session import Session

SCHEMA = compact.expand(
    "Talk",
    "1.0.0",
    """
Book root
  title: string
  pages: integer
  tags: string*
  notes: {string: string}
  isbn: string?
Review root
  of: ~Book*
  best: ~Book
""",
)
ROW = [f"00000000-0000-4000-8000-00000000000{number}" for number in range(4)]


def insert(number: int, **row: Any) -> Any:
    return {"op": "insert", "table": "Book", "uuid": ROW[number], "row": row}


def update(number: int, **row: Any) -> Any:
    where = [["_uuid", "==", ["uuid", ROW[number]]]]
    return {"op": "update", "table": "Book", "where": where, "row": row}


def review(number: int, *, of: list[int], best: int) -> Any:
    books = ["set", [["uuid", ROW[book]] for book in of]]
    row = {"of": books, "best": ["uuid", ROW[best]]}
    return {"op": "insert", "table": "Review", "uuid": ROW[number], "row": row}


def transact(*operations: Any) -> tuple[str, list[Any]]:
    return ("transact", ["Talk", *operations])


def watch(method: str, name: Any, requests: Any, *more: Any) -> tuple[str, list[Any]]:
    return (method, ["Talk", name, {"Book": requests}, *more])


def wait(timeout: int, **row: Any) -> Any:
    return {
        "op": "wait",
        "table": "Book",
        "timeout": timeout,
        "where": [],
        "columns": list(row),
        "until": "==",
        "rows": [row],
    }


CHANGES = [
    ("b", transact(insert(1, title="one", pages=1, tags=["set", ["a", "b"]]))),
    ("b", transact(update(1, tags=["set", ["b", "c"]], notes=["map", [["k", "v"]]]))),
    ("b", transact(update(1, notes=["map", [["k", "w"], ["l", "m"]]], isbn="x"))),
    ("b", transact(update(1, pages=7))),
    ("b", transact(update(1, pages=7))),
    ("a", transact(update(1, notes=["map", []], isbn=["set", []]), insert(2))),
    ("b", transact({"op": "delete", "table": "Book", "where": []})),
]
COLUMNS = ["title", "pages", "tags", "notes", "isbn"]
ALL = {"columns": COLUMNS}
FLAGS = [
    {"columns": ["title"], "select": {"initial": False, "modify": False}},
    {"columns": ["pages"], "select": {"insert": False, "delete": False}},
]
ZERO = "00000000-0000-0000-0000-000000000000"
START = ("b", transact(insert(0, title="zero", tags=["set", ["z"]])))
CONVERSATIONS: dict[str, list[tuple[str, tuple[str, list[Any]]]]] = {
    "monitor": [START, ("a", watch("monitor", 1, ALL)), *CHANGES],
    "monitor, array": [START, ("a", watch("monitor", [1], [ALL])), *CHANGES],
    "monitor, flags": [START, ("a", watch("monitor", None, FLAGS)), *CHANGES],
    "monitor_cond": [START, ("a", watch("monitor_cond", 1, [ALL])), *CHANGES],
    "monitor_cond, flags": [START, ("a", watch("monitor_cond", "x", FLAGS)), *CHANGES],
    "monitor_cond_since": [START, ("a", watch("monitor_cond_since", 1, [ALL], ZERO)), *CHANGES],
    "two monitors": [
        START,
        ("a", watch("monitor", 1, {"columns": ["title"]})),
        ("a", watch("monitor_cond", 2, [{"columns": ["pages"]}])),
        ("a", watch("monitor_cond", 2, [{"columns": ["pages"]}])),
        *CHANGES[:4],
        ("a", ("monitor_cancel", [1])),
        *CHANGES[4:],
    ],
    "conditions": [
        START,
        ("a", watch("monitor_cond", 1, [{**ALL, "where": [["pages", ">", 3]]}])),
        *CHANGES,
        ("b", transact(insert(3, title="three", pages=9))),
        ("a", ("monitor_cond_change", [1, 2, {"Book": [{"where": [["pages", "<", 3]]}]}])),
        ("b", transact(insert(0, pages=9), insert(1, pages=1))),
        ("a", ("monitor_cond_change", [2, 2, {"Book": [{"where": [True]}]}])),
        ("a", ("monitor_cond_change", [2, 2, {"Book": [{"where": [False]}]}])),
        ("a", ("monitor_cond_change", [2, 2, {"Book": [{"where": []}]}])),
        ("a", ("monitor_cond_change", [1, 2, {}])),
    ],
    "any of several conditions": [
        START,
        (
            "a",
            watch(
                "monitor_cond", 1, [{**ALL, "where": [["pages", "==", 7], ["title", "==", "zero"]]}]
            ),
        ),
        *CHANGES,
    ],
    "monitor of no column": [START, ("a", watch("monitor_cond", 1, [{"columns": []}])), *CHANGES],
    "waits": [
        START,
        ("a", transact(wait(0, title="one"))),
        ("a", transact(update(0, pages=5), wait(60_000, title="one"), update(0, pages=6))),
        ("b", transact({"op": "select", "table": "Book", "where": [], "columns": ["pages"]})),
        ("b", transact(update(0, title="one"))),
        ("b", transact({"op": "select", "table": "Book", "where": [], "columns": ["pages"]})),
    ],
    "weak references": [
        START,
        ("a", ("monitor_cond", ["Talk", 1, {"Review": [{"columns": ["of", "best"]}]}])),
        ("b", transact(insert(1, title="one"))),
        ("b", transact(review(2, of=[0, 1, 3], best=1))),
        ("b", transact(review(3, of=[0], best=3))),
        ("b", transact({"op": "delete", "table": "Book", "where": [["title", "==", "zero"]]})),
        (
            "b",
            transact({"op": "select", "table": "Review", "where": [], "columns": ["of", "best"]}),
        ),
        ("b", transact({"op": "delete", "table": "Book", "where": []})),
        ("b", transact({"op": "delete", "table": "Review", "where": []})),
        ("b", transact({"op": "delete", "table": "Book", "where": []})),
    ],
    "locks": [
        ("a", ("lock", ["l"])),
        ("b", ("lock", ["l"])),
        ("b", ("lock", ["l"])),
        ("a", transact({"op": "assert", "lock": "l"}, insert(0))),
        ("b", transact({"op": "assert", "lock": "l"}, insert(1))),
        ("a", ("unlock", ["l"])),
        ("b", transact({"op": "assert", "lock": "l"}, insert(2))),
        ("a", ("steal", ["l"])),
        ("b", transact({"op": "assert", "lock": "l"})),
        ("a", ("unlock", ["l"])),
        ("b", transact({"op": "assert", "lock": "l"})),
        ("b", ("unlock", ["l"])),
        ("b", ("unlock", ["l"])),
        ("b", ("lock", ["l"])),
        ("a", ("lock", ["m"])),
        ("a", ("lock", ["l"])),
    ],
    "others": [
        ("a", ("list_dbs", [])),
        ("a", ("echo", [1, {"a": None}])),
        ("a", ("nonsense", [])),
        ("a", ("monitor_cancel", [1])),
        ("a", ("get_schema", ["Nothing"])),
        ("a", ("set_db_change_aware", [True])),
    ],
}


class TheirClients:
    def __init__(self, connect: Callable[[], Any]) -> None:
        self.clients = {"a": connect(), "b": connect()}
        for table in ("Review", "Book"):
            delete: Any = {"op": "delete", "table": table, "where": []}
            self.clients["a"].request("transact", "Talk", delete)

    def say(self, who: str, message: Any) -> dict[str, list[Any]]:
        self.clients[who].send(message)
        return {name: self._received(client) for name, client in self._in_order(who)}

    def _in_order(self, first: str) -> list[tuple[str, Any]]:
        return sorted(self.clients.items(), key=lambda item: item[0] != first)

    def _received(self, client: Any) -> list[Any]:
        client.send({"method": "echo", "params": [], "id": "mark"})
        received = []
        while (message := client.receive())["id"] != "mark":
            received.append(message)
        return received

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


class OurClients:
    """The service with two clients and no sockets, its disk always at once."""

    def __init__(self) -> None:
        self.service = Service([Database(Schema(SCHEMA))], "Talk")
        self.written: dict[str, list[Any]] = {"a": [], "b": []}
        self.sessions = {name: self._connect(name) for name in self.written}

    def _connect(self, name: str) -> Session:
        session = Session(lambda data: self.written[name].append(json.loads(data)))
        self.service.connect(session)
        return session

    def say(self, who: str, message: Any) -> dict[str, list[Any]]:
        for received in self.written.values():
            received.clear()
        self.service.receive(self.sessions[who], message, 0.0)
        while self.service.run(0.0):
            self.service.durable()
        return {name: list(received) for name, received in self.written.items()}


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) >= {"error", "details"}:
            return value["error"]
        known = {key: plain(item) for key, item in value.items() if key != "_version"}
        return known if "id" not in known else {"result": None, **known}
    if isinstance(value, list):
        if len(value) == 2 and value[0] in ("set", "map"):
            return [value[0], sorted(map(plain, value[1]), key=json.dumps)]
        return [plain(item) for item in value]
    return value


@pytest.fixture(scope="module")
def connect(
    stock_server: Callable[[dict[str, Any]], Path], raw_client: Callable[[Path], Any]
) -> Callable[[], Any]:
    path = stock_server(SCHEMA)
    return lambda: raw_client(path)


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_same_messages_as_stock(name: str, connect: Callable[[], Any]) -> None:
    theirs, ours = TheirClients(connect), OurClients()
    try:
        for who, (method, params) in CONVERSATIONS[name]:
            message = {"method": method, "params": params, "id": 1}
            expected, received = theirs.say(who, message), ours.say(who, message)
            if method == "list_dbs":
                expected[who][0]["result"].remove("_Server")  # not of this service
            assert plain(received) == plain(expected), (who, message)
    finally:
        theirs.close()
