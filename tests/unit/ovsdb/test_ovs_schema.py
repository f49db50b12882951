# SPDX-License-Identifier: Apache-2.0
"""Our Open_vSwitch schema has all of the distribution's older one, and exactly this more."""

from __future__ import annotations

import json
from typing import Any

from ovs.db.schema import DbSchema

from heliograph.ovsdb import ovs_schema

# What version 8.8.0 has and the distribution's 8.3.1 has not.
ADDED_COLUMNS = {
    ("CT_Zone", "limit"),
    ("Datapath", "ct_zone_default_limit"),
    ("Flow_Sample_Collector_Set", "local_group_id"),
    ("IPFIX", "stats_interval"),
    ("IPFIX", "template_interval"),
    ("Mirror", "filter"),
}
WIDENED_COLUMNS = {("Flow_Table", "prefixes"): (3, 4)}  # most elements before and now


def both(stock: Any) -> tuple[Any, Any]:
    text = (stock.root / "usr/share/openvswitch/vswitch.ovsschema").read_text()
    theirs = json.loads(text)
    assert theirs["version"] == "8.3.1"
    return DbSchema.from_json(ovs_schema.open_vswitch().json), DbSchema.from_json(theirs)


def test_version_and_name() -> None:
    schema = ovs_schema.open_vswitch()
    assert (schema.name, schema.version) == ("Open_vSwitch", "8.8.0")


def test_same_tables_with_the_same_options(stock: Any) -> None:
    ours, theirs = both(stock)
    assert ours.tables.keys() == theirs.tables.keys()
    for name, table in theirs.tables.items():
        for option in ("is_root", "max_rows", "mutable"):
            assert getattr(ours.tables[name], option) == getattr(table, option), (name, option)
        indexes = [[column.name for column in index] for index in table.indexes]
        assert [[c.name for c in index] for index in ours.tables[name].indexes] == indexes


def test_every_column_is_there_and_the_same(stock: Any) -> None:
    ours, theirs = both(stock)
    for name, table in theirs.tables.items():
        for column_name, column in table.columns.items():
            mine = ours.tables[name].columns[column_name]
            place = (name, column_name)
            if place in WIDENED_COLUMNS:
                assert (column.type.n_max, mine.type.n_max) == WIDENED_COLUMNS[place]
                column.type.n_max = mine.type.n_max
            assert mine.type == column.type, place
            assert mine.mutable == column.mutable, place
            assert mine.persistent == column.persistent, place


def test_added_columns_are_exactly_the_listed_ones(stock: Any) -> None:
    ours, theirs = both(stock)
    added = {
        (name, column)
        for name, table in ours.tables.items()
        for column in table.columns
        if column not in theirs.tables[name].columns
    }
    assert added == ADDED_COLUMNS


def test_server_database_is_what_a_stock_server_has(stock_server: Any, raw_client: Any) -> None:
    client = raw_client(
        stock_server({"name": "Any", "tables": {"T": {"columns": {"c": {"type": "string"}}}}})
    )
    theirs = DbSchema.from_json(client.request("get_schema", "_Server"))
    ours = DbSchema.from_json(ovs_schema.server().json)
    assert ours.version == theirs.version
    assert ours.tables.keys() == theirs.tables.keys()
    columns = theirs.tables["Database"].columns
    assert ours.tables["Database"].columns.keys() == columns.keys()
    for name, column in columns.items():
        assert ours.tables["Database"].columns[name].type == column.type, name
