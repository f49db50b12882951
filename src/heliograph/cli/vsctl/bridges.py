# SPDX-License-Identifier: Apache-2.0
"""The commands on bridges, ports and interfaces.

A fake bridge is a Port with `fake_bridge` and a `tag`; to these commands it is a bridge of its
own that holds the other Ports of its parent with that tag.
"""

import re
from dataclasses import dataclass, field

from heliograph.cli.vsctl import values
from heliograph.cli.vsctl.context import Command, Context, Needs
from heliograph.cli.vsctl.errors import EndEarlyError, VsctlError, nearest
from heliograph.cli.vsctl.records import set_column
from heliograph.ovsdb.schema import Schema

VLAN_MOST = 4095


@dataclass(eq=False)
class BridgeView:
    name: str
    row: str  # of the real bridge: its own, or its parent's
    parent: "BridgeView | None" = None
    vlan: int = 0
    ports: "list[PortView]" = field(default_factory=list)
    children: "dict[int, BridgeView]" = field(default_factory=dict)


@dataclass(eq=False)
class PortView:
    name: str
    row: str
    bridge: BridgeView
    interfaces: "list[InterfaceView]" = field(default_factory=list)


@dataclass(eq=False)
class InterfaceView:
    name: str
    row: str
    port: PortView


class Layout:
    """Who holds whom, as the transaction has it now."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.bridges: dict[str, BridgeView] = {}
        self.ports: dict[str, PortView] = {}
        self.interfaces: dict[str, InterfaceView] = {}
        real = []
        for row in self._rows("Open_vSwitch", context.root, "bridges"):
            bridge = BridgeView(context.string("Bridge", row, "name"), row)
            if self.bridges.setdefault(bridge.name, bridge) is bridge:
                real.append(bridge)
        for bridge in real:
            self._add_fakes(bridge)
        for bridge in real:
            for row in self._rows("Bridge", bridge.row, "ports"):
                self._add_port(bridge, row)

    def _rows(self, table: str, row: str, column: str) -> list[str]:
        return self._context.references(table, row, column)

    def _tag(self, port: str) -> int | None:
        return next((int(tag) for tag in self._context.get("Port", port, "tag")), None)

    def _add_fakes(self, bridge: BridgeView) -> None:
        for row in self._rows("Bridge", bridge.row, "ports"):
            tag = self._tag(row)
            if tag is None or not any(self._context.get("Port", row, "fake_bridge")):
                continue
            name = self._context.string("Port", row, "name")
            fake = BridgeView(name, bridge.row, bridge, tag)
            if self.bridges.setdefault(name, fake) is fake:
                bridge.children.setdefault(tag, fake)

    def _add_port(self, bridge: BridgeView, row: str) -> None:
        tag = self._tag(row)
        holder = bridge if tag is None else bridge.children.get(tag, bridge)
        port = PortView(self._context.string("Port", row, "name"), row, holder)
        self.ports[port.name] = port
        holder.ports.append(port)
        for interface in self._rows("Port", row, "interfaces"):
            name = self._context.string("Interface", interface, "name")
            view = InterfaceView(name, interface, port)
            self.interfaces[name] = view
            port.interfaces.append(view)

    # ---- finding; what a command relied on is verified at commit ----

    def verify(self) -> None:
        """That nobody has added or removed bridges, ports or interfaces meanwhile."""
        transaction = self._context.transaction
        transaction.verify("Open_vSwitch", self._context.root, "bridges")
        for table, column in (("Bridge", "ports"), ("Port", "interfaces")):
            for row in transaction.rows(table):
                transaction.verify(table, row, column)

    def find_bridge(self, name: str) -> BridgeView | None:
        self._context.transaction.verify("Open_vSwitch", self._context.root, "bridges")
        return self.bridges.get(name)

    def bridge(self, name: str) -> BridgeView:
        found = self.find_bridge(name)
        if found is None:
            raise VsctlError(f"no bridge named {name}{nearest(name, self.bridges)}")
        return found

    def find_port(self, name: str) -> PortView | None:
        """Not the local port of a bridge: that one goes with its bridge."""
        self.verify()
        port = self.ports.get(name)
        return None if port is None or port.name == port.bridge.name else port

    def port(self, name: str) -> PortView:
        found = self.find_port(name)
        if found is None:
            raise VsctlError(f"no port named {name}{nearest(name, self.ports)}")
        return found

    def find_interface(self, name: str) -> InterfaceView | None:
        self.verify()
        found = self.interfaces.get(name)
        return None if found is None or found.name == found.port.bridge.name else found

    def check_free(self, name: str, what: str) -> None:
        """That no bridge, port or interface is called `name`; `what` begins the error."""
        self.verify()
        prefix = f"cannot create {what} named {name} because"
        if name in self.bridges:
            raise VsctlError(f"{prefix} a bridge named {name} already exists")
        if name in self.ports:
            on = self.ports[name].bridge.name
            raise VsctlError(f"{prefix} a port named {name} already exists on bridge {on}")
        if name in self.interfaces:
            on = self.interfaces[name].port.bridge.name
            raise VsctlError(f"{prefix} an interface named {name} already exists on bridge {on}")


def need_layout(schema: Schema, command: Command, needs: Needs) -> None:
    needs.add("Open_vSwitch", "bridges")
    needs.add("Bridge", "name", "ports")
    needs.add("Port", "name", "fake_bridge", "tag", "interfaces")
    needs.add("Interface", "name", "ofport", "error")


def need_external_ids(schema: Schema, command: Command, needs: Needs) -> None:
    need_layout(schema, command, needs)
    needs.add("Bridge", "external_ids")
    needs.add("Port", "external_ids")


# ---- bridges ----


def add_bridge(context: Context, command: Command) -> None:
    name, *parent = command.arguments
    if not name:
        raise VsctlError("bridge name must not be empty string")
    if len(parent) == 1:
        raise VsctlError(f"'{command.name}' command takes exactly 1 or 3 arguments")
    vlan = _vlan(command, parent[1]) if parent else 0
    layout = Layout(context)
    existing = layout.find_bridge(name) if command.has("--may-exist") else None
    if existing is not None:
        _check_same_bridge(existing, parent[0] if parent else None, vlan)
        return
    layout.check_free(name, "a bridge")
    port = _insert_port(context, name, [name], internal=True)
    if not parent:
        bridge = context.transaction.insert("Bridge")
        context.transaction.write("Bridge", bridge, "name", (name,))
        context.transaction.write("Bridge", bridge, "ports", (port,))
        _refer(context, "Open_vSwitch", context.root, "bridges", add=bridge)
        return
    holder = layout.find_bridge(parent[0])
    if holder is None:
        raise VsctlError(f"parent bridge {parent[0]} does not exist")
    if holder.parent is not None:
        raise VsctlError("cannot create bridge with fake bridge as parent")
    if vlan in holder.children:
        raise VsctlError(
            f"bridge {holder.name} already has a child VLAN bridge "
            f"{holder.children[vlan].name} on VLAN {vlan}"
        )
    context.transaction.write("Port", port, "fake_bridge", (True,))
    context.transaction.write("Port", port, "tag", (vlan,))
    _refer(context, "Bridge", holder.row, "ports", add=port)


def _vlan(command: Command, word: str) -> int:
    if not re.fullmatch(r"\d+", word) or int(word) > VLAN_MOST:
        raise VsctlError(f"{command.name}: vlan must be between 0 and {VLAN_MOST}")
    return int(word)


def _check_same_bridge(bridge: BridgeView, parent: str | None, vlan: int) -> None:
    """--may-exist forgives only a bridge of the same kind."""
    name = bridge.name
    if parent is None:
        if bridge.parent is not None:
            raise VsctlError(
                f'"--may-exist add-br {name}" but {name} is a VLAN bridge for VLAN {bridge.vlan}'
            )
        return
    prefix = f'"--may-exist add-br {name} {parent} {vlan}" but {name}'
    if bridge.parent is None:
        raise VsctlError(f"{prefix} is not a VLAN bridge")
    if bridge.parent.name != parent:
        raise VsctlError(f"{prefix} has the wrong parent {bridge.parent.name}")
    if bridge.vlan != vlan:
        raise VsctlError(f"{prefix} is a VLAN bridge for the wrong VLAN {bridge.vlan}")


def delete_bridge(context: Context, command: Command) -> None:
    layout = Layout(context)
    name = command.arguments[0]
    bridge = layout.find_bridge(name) if command.has("--if-exists") else layout.bridge(name)
    if bridge is None:
        return
    for holder in [*bridge.children.values(), bridge]:
        for port in holder.ports:
            _delete_port(context, port)
    if bridge.parent is None:
        context.transaction.delete("Bridge", bridge.row)
        _refer(context, "Open_vSwitch", context.root, "bridges", drop=bridge.row)


def bridge_exists(context: Context, command: Command) -> None:
    if Layout(context).find_bridge(command.arguments[0]) is None:
        raise EndEarlyError(2)


def list_bridges(context: Context, command: Command) -> None:
    both = not (command.has("--real") or command.has("--fake"))
    layout = Layout(context)
    for name in sorted(layout.bridges):
        wanted = "--real" if layout.bridges[name].parent is None else "--fake"
        if both or command.has(wanted):
            command.line(name)


def bridge_to_vlan(context: Context, command: Command) -> None:
    command.line(str(Layout(context).bridge(command.arguments[0]).vlan))


def bridge_to_parent(context: Context, command: Command) -> None:
    bridge = Layout(context).bridge(command.arguments[0])
    command.line((bridge.parent or bridge).name)


def _external_ids(context: Context, name: str) -> tuple[str, str, str]:
    """Where the external IDs of a bridge are: (table, row, prefix of their keys)."""
    layout = Layout(context)
    bridge = layout.bridge(name)
    if bridge.parent is None:
        return "Bridge", bridge.row, ""
    return "Port", layout.ports[name].row, "fake-bridge-"


def set_external_id(context: Context, command: Command) -> None:
    name, key, *value = command.arguments
    table, row, prefix = _external_ids(context, name)
    old = context.get(table, row, "external_ids")
    assert isinstance(old, dict)
    new = {k: v for k, v in old.items() if k != prefix + key}
    if value:
        new[prefix + key] = value[0]
    context.transaction.verify(table, row, "external_ids")
    context.transaction.write(table, row, "external_ids", values.canonical(new))


def get_external_id(context: Context, command: Command) -> None:
    name, *key = command.arguments
    table, row, prefix = _external_ids(context, name)
    context.transaction.verify(table, row, "external_ids")
    data = context.get(table, row, "external_ids")
    assert isinstance(data, dict)
    if key:
        if prefix + key[0] in data:
            command.line(str(data[prefix + key[0]]))
        return
    for full, value in data.items():
        if str(full).startswith(prefix):
            command.line(f"{str(full)[len(prefix) :]}={value}")


def need_fail_mode(schema: Schema, command: Command, needs: Needs) -> None:
    need_layout(schema, command, needs)
    needs.add("Bridge", "fail_mode")


def _real_bridge(context: Context, name: str) -> str:
    """The row of a bridge that is no fake one."""
    bridge = Layout(context).bridge(name)
    if bridge.parent is not None:
        raise VsctlError(f"{name} is a fake bridge")
    return bridge.row


def get_fail_mode(context: Context, command: Command) -> None:
    row = _real_bridge(context, command.arguments[0])
    context.transaction.verify("Bridge", row, "fail_mode")
    for mode in context.get("Bridge", row, "fail_mode"):
        command.line(str(mode))


def set_fail_mode(context: Context, command: Command) -> None:
    name, mode = command.arguments
    row = _real_bridge(context, name)
    if mode not in ("standalone", "secure"):
        raise VsctlError('fail-mode must be "standalone" or "secure"')
    context.transaction.write("Bridge", row, "fail_mode", (mode,))


def delete_fail_mode(context: Context, command: Command) -> None:
    row = _real_bridge(context, command.arguments[0])
    context.transaction.write("Bridge", row, "fail_mode", ())


# ---- ports and interfaces ----


def _insert_port(context: Context, name: str, interfaces: list[str], internal: bool = False) -> str:
    transaction = context.transaction
    rows = []
    for interface in interfaces:
        row = transaction.insert("Interface")
        transaction.write("Interface", row, "name", (interface,))
        if internal:
            transaction.write("Interface", row, "type", ("internal",))
        rows.append(row)
    context.new_interfaces += rows
    port = transaction.insert("Port")
    transaction.write("Port", port, "name", (name,))
    transaction.write("Port", port, "interfaces", tuple(sorted(rows)))
    return port


def _refer(
    context: Context, table: str, row: str, column: str, *, add: str = "", drop: str = ""
) -> None:
    """Add or drop one reference in a set of them."""
    kept = [other for other in context.references(table, row, column) if other != drop]
    data = values.canonical((*kept, add) if add else tuple(kept))
    context.transaction.write(table, row, column, data)


def add_port(context: Context, command: Command) -> None:
    bridge_name, name, *settings = command.arguments
    if not name:
        raise VsctlError("port name must not be empty string")
    layout = Layout(context)
    existing = layout.find_port(name) if command.has("--may-exist") else None
    if existing is not None:
        _check_same_port(existing, bridge_name, command)
        return
    layout.check_free(name, "a port")
    bridge = layout.bridge(bridge_name)
    port = _insert_port(context, name, [name])
    if bridge.parent is not None:
        context.transaction.write("Port", port, "tag", (bridge.vlan,))
    for word in settings:
        set_column(context, context.schema.tables["Port"], port, word)
    _refer(context, "Bridge", bridge.row, "ports", add=port)


def _check_same_port(port: PortView, bridge: str, command: Command) -> None:
    """--may-exist forgives only a port of the same bridge with the same one interface."""
    line = " ".join([*command.options, command.name, *command.arguments])
    if port.bridge.name != bridge:
        raise VsctlError(
            f'"{line}" but {port.name} is actually attached to bridge {port.bridge.name}'
        )
    names = sorted(interface.name for interface in port.interfaces)
    if names != [port.name]:
        raise VsctlError(f'"{line}" but {port.name} actually has interface(s) {", ".join(names)}')


def delete_port(context: Context, command: Command) -> None:
    target = command.arguments[-1]
    must_exist = not command.has("--if-exists")
    layout = Layout(context)
    if layout.find_bridge(target) is not None:
        if must_exist:
            raise VsctlError(
                f"cannot delete port {target} because it is the local port for bridge {target} "
                "(deleting this port requires deleting the entire bridge)"
            )
        return
    port = layout.find_port(target)
    if port is None and command.has("--with-iface"):
        interface = layout.find_interface(target)
        port = interface.port if interface else None
        if port is None and must_exist:
            raise VsctlError(f"no port or interface named {target}")
    if port is None:
        if must_exist:
            layout.port(target)
        return
    if len(command.arguments) > 1:
        _check_holds(layout.bridge(command.arguments[0]), port)
    _delete_port(context, port)


def _check_holds(bridge: BridgeView, port: PortView) -> None:
    if port.bridge is bridge:
        return
    text = f"bridge {bridge.name} does not have a port {port.name}"
    if port.bridge.parent is bridge:
        text += f" (although its child bridge {port.bridge.name} does)"
    raise VsctlError(text)


def _delete_port(context: Context, port: PortView) -> None:
    _refer(context, "Bridge", port.bridge.row, "ports", drop=port.row)
    for interface in port.interfaces:
        context.transaction.delete("Interface", interface.row)
    context.transaction.delete("Port", port.row)


def list_ports(context: Context, command: Command) -> None:
    layout = Layout(context)
    bridge = layout.bridge(command.arguments[0])
    context.transaction.verify("Bridge", bridge.row, "ports")
    for name in sorted(port.name for port in bridge.ports if port.name != bridge.name):
        command.line(name)


def list_interfaces(context: Context, command: Command) -> None:
    layout = Layout(context)
    bridge = layout.bridge(command.arguments[0])
    layout.verify()
    names = [interface.name for port in bridge.ports for interface in port.interfaces]
    for name in sorted(name for name in names if name != bridge.name):
        command.line(name)


def port_to_bridge(context: Context, command: Command) -> None:
    command.line(Layout(context).port(command.arguments[0]).bridge.name)


def interface_to_bridge(context: Context, command: Command) -> None:
    name = command.arguments[0]
    layout = Layout(context)
    interface = layout.find_interface(name)
    if interface is None:
        raise VsctlError(f"no interface named {name}{nearest(name, layout.interfaces)}")
    command.line(interface.port.bridge.name)
