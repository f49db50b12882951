# SPDX-License-Identifier: Apache-2.0
"""`helio show`: the switch for people: bridges, ports, mirrors, counters, and what is wrong."""

import asyncio
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from heliograph.cli import flows
from heliograph.cli.overview import (
    COLUMNS,
    Bridge,
    Controller,
    Counters,
    Mirror,
    Overview,
    Port,
    overview,
)
from heliograph.errors import HeliographError
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.replica import Replica

# One line: pieces of (style of rich, text). Plain output is the texts alone.
Piece = tuple[str, str]
Line = list[Piece]
_GOOD, _BAD, _NAME, _FAINT = "green", "bold red", "bold", "dim"


def show(remote: str, rundir: Path, as_json: bool) -> int:
    """Print it; 0 also when something is wrong with the switch, since showing that is the job."""
    replica = asyncio.run(_fetch(remote))
    state = overview(replica, _live(rundir), lambda bridge: flows.count(rundir, bridge))
    if as_json:
        print(json.dumps(dataclasses.asdict(state), indent=2))
        return 0
    _print(list(lines(state)))
    return 0


async def _fetch(remote: str) -> Replica:
    try:
        client = await Client.connect(remote)
    except HeliographError as error:
        raise HeliographError(f"{error}: is `helio run` running there?") from error
    try:
        schema = await client.get_schema()
        # An older server, say the distribution's, may lack a column.
        tables = {
            table: [column for column in columns if column in schema.tables[table].columns]
            for table, columns in COLUMNS.items()
        }
        return await client.monitor(tables, lambda: None)
    finally:
        await client.close()


def _live(rundir: Path) -> Counters | None:
    """What the running data plane counts right now; None where its maps cannot be read."""
    from heliograph.switch import feedback  # noqa: PLC0415  (loads what reads BPF maps)

    found = feedback.live(rundir)
    return None if found is None else Counters(found.mirrors, found.ports)


def _print(content: list[Line]) -> None:
    if not sys.stdout.isatty():
        print("\n".join("".join(text for _, text in line).rstrip() for line in content))
        return
    from rich.console import Console  # noqa: PLC0415  (only a terminal pays for it)
    from rich.text import Text  # noqa: PLC0415

    console = Console(highlight=False)
    for line in content:
        console.print(Text.assemble(*((text, style) for style, text in line)), soft_wrap=True)


def lines(state: Overview) -> Iterator[Line]:
    """The page, line by line."""
    for bridge in state.bridges:
        yield [("", "Bridge "), (_NAME, bridge.name), (_FAINT, _remark(bridge))]
        for controller in bridge.controllers:
            yield from _controller(controller)
        yield from _ports(bridge.ports)
        for mirror in bridge.mirrors:
            yield from _mirror(mirror)
        yield []
    if not state.bridges:
        yield [("", "no bridge")]
        yield []
    if state.counters_age is not None:
        age = f"counters are from the database, up to {state.counters_age:.0f} s old"
        yield [(_FAINT, f"{age}: the data plane cannot be read from here")]
    if not state.problems:
        yield [(_GOOD, "nothing is wrong")]
        return
    yield [(_BAD, f"WRONG ({len(state.problems)}):")]
    for problem in state.problems:
        yield [("", "  "), (_BAD, problem.where), ("", f": {problem.text}")]


def _remark(bridge: Bridge) -> str:
    mode = f"  fail_mode {bridge.fail_mode}" if bridge.fail_mode else ""
    if bridge.flows is None:
        return mode
    return f"{mode}  {bridge.flows:,} flow{'s' if bridge.flows != 1 else ''}"


def _controller(controller: Controller) -> Iterator[Line]:
    connected = controller.state.startswith("connected")
    style = _GOOD if connected else _BAD if controller.problems else _FAINT
    yield [("", "  controller "), (_NAME, controller.target), (style, f"  {controller.state}")]
    yield from ([("", "         "), (_BAD, f"! {text}")] for text in controller.problems)


def _ports(ports: list[Port]) -> Iterator[Line]:
    rows = [
        [
            port.name,
            port.vlan,
            port.state + (", mirror output" if port.mirror_output else ""),
            f"mtu {port.mtu}" if port.mtu else port.tunnel,
            _traffic("rx", port.statistics),
            _traffic("tx", port.statistics),
        ]
        for port in ports
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)] if rows else []
    for port, row in zip(ports, rows, strict=True):
        cells = [cell.ljust(width + 2) for cell, width in zip(row, widths, strict=True)]
        state = _GOOD if port.state == "up" else _BAD if port.problems else _FAINT
        styles = [_NAME, "", state, _FAINT, "", ""]
        yield [("", "  port   "), *zip(styles, cells, strict=True)]
        if port.tunnel:
            yield from _dropped(port.statistics)
        yield from ([("", "         "), (_BAD, f"! {text}")] for text in port.problems)


def _mirror(mirror: Mirror) -> Iterator[Line]:
    snaplen = f", first {mirror.snaplen} bytes" if mirror.snaplen else ""
    yield [
        ("", "  mirror "),
        (_NAME, mirror.name),
        ("", f"  {mirror.selects} -> {mirror.output or 'nowhere'}{snaplen}  "),
        ("", _traffic("tx", mirror.statistics).removeprefix("tx ")),
    ]
    yield from _dropped(mirror.statistics)
    yield from ([("", "         "), (_BAD, f"! {text}")] for text in mirror.problems)


def _dropped(statistics: Mapping[str, int]) -> Iterator[Line]:
    drops = {k: n for k, n in statistics.items() if k.startswith("drop_") and n}
    if drops:
        reasons = ", ".join(f"{k.removeprefix('drop_')} {n:,}" for k, n in sorted(drops.items()))
        yield [("", "         "), (_BAD, f"dropped {sum(drops.values()):,}: {reasons}")]
    if cut := statistics.get("cut_mtu"):
        yield [("", "         "), ("", f"cut to the MTU of the tunnel's way: {cut:,}")]


def _traffic(direction: str, statistics: Mapping[str, int]) -> str:
    packets = statistics.get(f"{direction}_packets")
    if packets is None:
        return ""
    return f"{direction} {packets:,} packets, {size(statistics.get(f'{direction}_bytes', 0))}"


def size(count: int) -> str:
    """Bytes, in powers of 1000."""
    if count < 1000:
        return f"{count} B"
    number = float(count)
    for unit in ("kB", "MB", "GB"):
        number /= 1000
        if number < 999.95:
            return f"{number:.1f} {unit}"
    return f"{number / 1000:.1f} TB"
