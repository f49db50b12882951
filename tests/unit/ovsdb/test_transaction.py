# SPDX-License-Identifier: Apache-2.0
"""What the comparison with the stock server leaves out, as the stock server gets it wrong."""

from __future__ import annotations

from typing import Any

from heliograph.ovsdb import ovs_schema
from heliograph.ovsdb.database import Database
from heliograph.ovsdb.operations import Execution


def run(database: Database, *operations: Any) -> list[Any]:
    return Execution(database, lambda name: False, 0.0).run(operations).results


def test_every_weak_reference_goes_with_its_row() -> None:
    """A mirror that names one port in three columns; ovsdb-server 3.1 forgets some of them."""
    database = Database(ovs_schema.open_vswitch())
    operations: list[Any] = []
    for name in ("a", "b"):
        interface = {"op": "insert", "table": "Interface", "uuid-name": f"i{name}"}
        port = {"op": "insert", "table": "Port", "uuid-name": f"p{name}"}
        reference = ["named-uuid", f"i{name}"]
        operations += [
            {**interface, "row": {"name": name}},
            {**port, "row": {"name": name, "interfaces": reference}},
        ]
    ports = ["set", [["named-uuid", "pa"], ["named-uuid", "pb"]]]
    selected: Any = {"select_src_port": ports, "select_dst_port": ports}
    mirror = {"name": "m", "output_port": ["named-uuid", "pa"], **selected}
    bridge = {"name": "br", "ports": ports, "mirrors": ["named-uuid", "m"]}
    results = run(
        database,
        *operations,
        {"op": "insert", "table": "Mirror", "uuid-name": "m", "row": mirror},
        {"op": "insert", "table": "Bridge", "uuid-name": "b", "row": bridge},
        {"op": "insert", "table": "Open_vSwitch", "row": {"bridges": ["named-uuid", "b"]}},
    )
    gone, kept = results[1]["uuid"], results[3]["uuid"]
    change = {"op": "update", "table": "Mirror", "where": [], "row": {"snaplen": 100}}
    mutation = {"op": "mutate", "table": "Bridge", "where": []}
    run(database, change, {**mutation, "mutations": [["ports", "delete", gone]]})
    (row,) = database.tables["Mirror"].rows.values()
    assert (row["select_src_port"], row["select_dst_port"]) == ((kept[1],), (kept[1],))
    assert row["output_port"] == ()
    assert row["snaplen"] == (100,)
    assert len(database.tables["Port"].rows) == len(database.tables["Interface"].rows) == 1
    assert set(database.tables["Port"].weak) == {kept[1]}
