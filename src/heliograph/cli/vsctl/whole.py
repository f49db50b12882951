# SPDX-License-Identifier: Apache-2.0
"""The commands on the whole database: init, show, emer-reset."""

from heliograph.cli.vsctl import values
from heliograph.cli.vsctl.context import Command, Context, Needs
from heliograph.ovsdb.schema import Schema

# What `show` prints of each table: the column that names a row, then columns; one that refers
# to a table listed here shows those rows, indented.
SHOWN: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "Open_vSwitch": (None, ("manager_options", "bridges", "ovs_version")),
    "Bridge": ("name", ("controller", "fail_mode", "datapath_type", "ports")),
    "Port": ("name", ("tag", "trunks", "interfaces")),
    "Interface": ("name", ("type", "options", "error")),
    "Controller": ("target", ("is_connected",)),
    "Manager": ("target", ("is_connected",)),
}
# What emer-reset empties, and the tables it empties of all rows.
RESET = {
    "Open_vSwitch": ("manager_options", "ssl"),
    "Bridge": (
        *("controller", "fail_mode", "mirrors", "netflow", "sflow", "ipfix", "flood_vlans"),
        "other_config",
    ),
    "Port": ("other_config",),
    "Interface": ("ingress_policing_rate", "ingress_policing_burst"),
}
EMPTIED: tuple[str, ...] = ("Mirror", "Controller", "Manager", "NetFlow", "SSL", "sFlow", "IPFIX")
EMPTIED += ("Flow_Sample_Collector_Set",)


def init(context: Context, command: Command) -> None:
    """The one row of Open_vSwitch is made for every line that finds none."""


def need_show(schema: Schema, command: Command, needs: Needs) -> None:
    for table, (name, columns) in SHOWN.items():
        needs.add(table, *columns, *([name] if name else []))


def show(context: Context, command: Command) -> None:
    for row in context.transaction.rows("Open_vSwitch"):
        _show_row(context, command, "Open_vSwitch", row, 0)


def _show_row(context: Context, command: Command, table: str, row: str, level: int) -> None:
    name, columns = SHOWN[table]
    types = context.schema.tables[table].columns
    indent = " " * 4 * level
    if name is None:
        command.line(indent + row)
    else:
        shown = values.text(types[name].type, context.get(table, row, name))
        command.line(f"{indent}{table} {shown}")
    for column in columns:
        kind = types[column].type
        data = context.get(table, row, column)
        if kind.key.ref_table in SHOWN:
            for other in context.references(table, row, column):
                if context.transaction.exists(kind.key.ref_table, other):
                    _show_row(context, command, kind.key.ref_table, other, level + 1)
        elif data != kind.default:
            command.line(f"{indent}    {column}: {values.text(kind, data)}")


def need_emergency_reset(schema: Schema, command: Command, needs: Needs) -> None:
    for table, columns in RESET.items():
        needs.add(table, *columns)
    for table in EMPTIED:
        needs.add(table)


def emergency_reset(context: Context, command: Command) -> None:
    """Back to switching without policy; a bridge keeps its other_config:hwaddr."""
    transaction = context.transaction
    for table, columns in RESET.items():
        for row in list(transaction.rows(table)):
            for column in columns:
                data = context.schema.tables[table].columns[column].type.default
                if (table, column) == ("Bridge", "other_config"):
                    old = context.get(table, row, column)
                    assert isinstance(old, dict)
                    data = {key: value for key, value in old.items() if key == "hwaddr"}
                transaction.write(table, row, column, data)
    for table in EMPTIED:
        for row in list(transaction.rows(table)):
            transaction.delete(table, row)
