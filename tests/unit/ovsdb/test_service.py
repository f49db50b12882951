# SPDX-License-Identifier: Apache-2.0
"""The order of things in the service: nothing is seen before it is on disk, clients take turns,
and a transaction that waits ends in time."""

from __future__ import annotations

import json
from typing import Any

import pytest

from heliograph.ovsdb import compact, operations
from heliograph.ovsdb.database import Commit, Database
from heliograph.ovsdb.schema import Schema
from heliograph.ovsdb.service import Service
from heliograph.ovsdb.session import Session

SCHEMA = compact.expand(
    "D",
    "1.0.0",
    "Book root index(title)\n  title: string\n  author: @Author?\nAuthor\n  name: string",
)
SELECT = {"op": "select", "table": "Book", "where": [], "columns": ["title"]}


def book(title: str) -> Any:
    return {"op": "insert", "table": "Book", "row": {"title": title}}


def wait(timeout: float | None, title: str) -> Any:
    limit = {} if timeout is None else {"timeout": timeout}
    rows: Any = {"columns": ["title"], "until": "==", "rows": [{"title": title}]}
    return {"op": "wait", "table": "Book", "where": [["title", "==", title]], **limit, **rows}


class Client:
    def __init__(self, service: Service) -> None:
        self.service = service
        self.received: list[Any] = []
        self.session = Session(lambda data: self.received.append(json.loads(data)))
        service.connect(self.session)

    def ask(self, method: str, *params: Any, number: Any = 1) -> None:
        message = {"method": method, "params": list(params), "id": number}
        self.service.receive(self.session, message, 0.0)

    def transact(self, *operations: Any, number: Any = 1) -> None:
        self.ask("transact", "D", *operations, number=number)

    def take(self) -> list[Any]:
        received, self.received = self.received, []
        return received


class Stage:
    """A service with two clients, whose disk is as slow as the test says."""

    def __init__(self) -> None:
        self.database = Database(Schema(SCHEMA))
        self.service = Service([self.database], "D")
        self.a, self.b = Client(self.service), Client(self.service)

    def run(self, now: float = 0.0) -> list[Commit]:
        return self.service.run(now)

    def settle(self, now: float = 0.0) -> None:
        while self.run(now):
            self.service.durable()

    def titles(self) -> list[Any]:
        return sorted(row["title"] for row in self.database.tables["Book"].rows.values())


@pytest.fixture
def stage() -> Stage:
    return Stage()


def test_nobody_sees_what_is_not_on_disk(stage: Stage) -> None:
    stage.b.ask("monitor_cond", "D", "m", {"Book": {"columns": ["title"]}})
    stage.settle()
    stage.b.take()
    stage.a.transact(book("one"))
    assert len(stage.run()) == 1
    stage.b.transact(SELECT)
    stage.b.ask("echo", "slow disk", number=2)
    assert stage.run() == []  # nothing more is carried out meanwhile
    stage.service.flush()  # as when a slow client can take more
    assert stage.a.take() == stage.b.take() == []
    stage.service.durable()
    stage.settle()
    assert stage.a.take()[0]["error"] is None
    update, rows, echo = stage.b.take()
    assert update["method"] == "update2"
    assert rows["result"] == [{"rows": [{"title": "one"}]}]
    assert echo["result"] == ["slow disk"]


def test_what_arrives_during_a_sync_shares_the_next_one(stage: Stage) -> None:
    stage.a.transact(book("0"))
    assert len(stage.run()) == 1
    for number in range(1, 6):
        stage.a.transact(book(str(number)), number=number)
        stage.b.transact(book(f"b{number}"), number=number)
    stage.service.durable()
    assert len(stage.run()) == 10
    stage.service.durable()
    assert [message["id"] for message in stage.a.take()] == [1, 1, 2, 3, 4, 5]


def test_a_failing_disk_undoes_the_whole_batch(stage: Stage) -> None:
    author = {"op": "insert", "table": "Author", "uuid-name": "w", "row": {"name": "W"}}
    written = {
        "op": "insert",
        "table": "Book",
        "row": {"title": "kept", "author": ["named-uuid", "w"]},
    }
    stage.a.transact(author, written)
    stage.settle()
    stage.b.ask("monitor_cond", "D", "m", {"Book": {"columns": ["title"]}})
    stage.settle()
    stage.a.take(), stage.b.take()
    stage.a.transact({"op": "delete", "table": "Book", "where": []})
    stage.b.transact(book("kept"), book("more"), number=7)
    assert len(stage.run()) == 2
    assert stage.titles() == [("kept",), ("more",)]
    assert stage.service.failed("no space") == []
    assert stage.titles() == [("kept",)]
    assert len(stage.database.tables["Author"].rows) == 1
    (reply,) = stage.a.take()
    assert reply["result"][0]["error"] == "I/O error"
    (reply,) = stage.b.take()  # and no update of what has not happened
    assert (reply["id"], reply["result"][0]["error"]) == (7, "I/O error")
    # The derived data was undone too: the index knows "kept", the author is referred to.
    stage.a.transact(book("kept"))
    stage.settle()
    assert stage.a.take()[0]["result"][1]["error"] == "constraint violation"
    stage.a.transact({"op": "delete", "table": "Book", "where": []})
    stage.settle()
    assert stage.database.tables["Author"].rows == {}


def test_clients_take_turns(stage: Stage) -> None:
    order: list[str] = []
    busy = Session(lambda data: order.append("busy"))
    quick = Session(lambda data: order.append("quick"))
    for session in (busy, quick):
        stage.service.connect(session)
    for _ in range(100):
        stage.service.receive(busy, {"method": "echo", "params": ["x" * 100_000], "id": 1}, 0.0)
    stage.service.receive(quick, {"method": "echo", "params": [], "id": 1}, 0.0)
    stage.settle()
    assert len(order) == 101
    assert "quick" in order[:30]  # the busy one's answers are written a megabyte at a time


def test_a_wait_ends_when_its_time_is_over(stage: Stage) -> None:
    stage.a.transact(wait(250, "one"))
    stage.settle()
    assert stage.service.deadline() == 0.25
    assert stage.a.take() == []
    stage.settle(0.25)
    (reply,) = stage.a.take()
    assert reply["result"][0]["error"] == "timed out"
    assert stage.service.deadline() is None


def test_a_wait_that_comes_true_is_carried_out(stage: Stage) -> None:
    stage.a.transact(wait(None, "one"), book("two"))
    stage.settle()
    assert stage.service.deadline() is None
    stage.b.transact(book("other"))
    stage.settle(5.0)
    assert stage.a.take() == []
    stage.b.transact(book("one"))
    stage.settle(6.0)
    assert stage.a.take()[0]["result"][0] == {}
    assert ("two",) in stage.titles()


def test_a_waiting_transaction_can_be_cancelled(stage: Stage) -> None:
    stage.a.transact(wait(None, "one"), number="tx")
    stage.b.ask("cancel", "tx", number=None)  # another client's is not its to cancel
    stage.settle()
    assert stage.a.take() == []
    stage.a.ask("cancel", "tx", number=None)
    stage.settle()
    (reply,) = stage.a.take()
    assert (reply["id"], reply["error"]) == ("tx", "canceled")
    assert stage.b.take() == []


def test_a_client_that_leaves_takes_its_waits_and_locks_along(stage: Stage) -> None:
    stage.a.ask("lock", "l")
    stage.b.ask("lock", "l")
    stage.a.transact(wait(None, "one"), book("two"))
    stage.settle()
    assert stage.b.take()[0]["result"] == {"locked": False}
    stage.service.disconnect(stage.a.session)
    stage.b.transact(book("one"))
    stage.settle()
    locked, reply = stage.b.take()
    assert (locked["method"], locked["params"]) == ("locked", ["l"])
    assert reply["error"] is None
    assert stage.titles() == [("one",)]


def test_too_many_waiting_transactions_are_refused(stage: Stage) -> None:
    for number in range(101):
        stage.a.transact(wait(None, "one"), number=number)
    stage.settle()
    (reply,) = stage.a.take()
    assert (reply["id"], reply["error"]["error"]) == (100, "resources exhausted")


def test_a_bug_in_one_request_is_its_error_and_undone(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def boom(run: Any, operation: Any) -> Any:
        raise RuntimeError("a mistake of ours")

    flawed = operations._OPERATIONS["comment"]._replace(function=boom)
    monkeypatch.setitem(operations._OPERATIONS, "comment", flawed)
    stage.a.transact(book("half"), {"op": "comment", "comment": "x"})
    stage.b.transact(book("whole"))
    stage.settle()
    assert stage.a.take()[0]["error"]["error"] == "internal error"
    assert "a mistake of ours" in caplog.text
    assert stage.b.take()[0]["error"] is None
    assert stage.titles() == [("whole",)]
