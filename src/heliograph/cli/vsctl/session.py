# SPDX-License-Identifier: Apache-2.0
"""Carry out one line: connect, see what it needs, commit, wait for the switch, print."""

import asyncio
import os
import shlex
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from heliograph import __version__
from heliograph.cli.vsctl import words
from heliograph.cli.vsctl.context import Context, Needs
from heliograph.cli.vsctl.errors import EndEarlyError, TryAgainError, VsctlError
from heliograph.cli.vsctl.tables import Table, render
from heliograph.cli.vsctl.transaction import Snapshot
from heliograph.errors import HeliographError
from heliograph.ovsdb.client import Client
from heliograph.ovsdb.errors import Json, TransactionError
from heliograph.ovsdb.replica import Replica

RETRY_PERIOD = 0.5
# Rows that say what is wrong with them in external_ids (mirror-semantics.md, D1).
COMPLAINING = ("Bridge", "Port", "Mirror")
COMPLAINT = "heliograph-error"


def main(line: Sequence[str]) -> int:
    """Run `line` (the words after `helio vsctl`); the exit code is that of ovs-vsctl."""
    parsed = words.parse(line)
    if parsed.settings.answer == "help":
        print(words.usage(), end="")
        return 0
    if parsed.settings.answer == "version":
        print(f"helio vsctl {__version__}")
        return 0
    if parsed.settings.timeout:
        signal.signal(signal.SIGALRM, _out_of_time)
        signal.alarm(parsed.settings.timeout)
    try:
        return asyncio.run(_Session(parsed, shlex.join(line)).run())
    except EndEarlyError as end:
        return end.code


def _out_of_time(number: int, frame: FrameType | None) -> None:
    """Die as ovs-vsctl does: by SIGALRM, so that a script sees the same status."""
    os.write(2, b"helio: gave up waiting (--timeout)\n")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def _complain(text: str) -> None:
    print(f"helio: {text}", file=sys.stderr)


class _Session:
    def __init__(self, line: words.Line, text: str) -> None:
        self._settings = line.settings
        self._commands = line.commands
        self._text = text
        self._changed = asyncio.Event()
        self._writes = any(command.name in words.WRITERS for command in line.commands)

    async def run(self) -> int:
        client = await self._connect()
        try:
            schema = await client.get_schema()
            needs = Needs()
            needs.add("Open_vSwitch")
            for command in self._commands:
                words.COMMANDS[command.name].need(schema, command, needs)
            if self._settings.wait and self._writes:
                needs.add("Open_vSwitch", "cur_cfg")
                for table in COMPLAINING:
                    needs.add(table, "name", "external_ids")
            tables = {table: sorted(columns) for table, columns in needs.tables.items()}
            replica = await client.monitor(tables, self._changed.set)
            await self._until_done(client, replica)
        finally:
            await client.close()
        return 0

    async def _connect(self) -> Client:
        while True:
            try:
                return await Client.connect(self._settings.db)
            except HeliographError:
                if not self._settings.retry:
                    raise
                await asyncio.sleep(RETRY_PERIOD)

    async def _until_done(self, client: Client, replica: Replica) -> None:
        """Run the line on what the replica shows, again whenever it proved out of date."""
        while True:
            self._changed.clear()
            try:
                await self._once(client, replica)
                return
            except TryAgainError:
                await self._change(client)

    async def _change(self, client: Client) -> None:
        """Wait for the next update; VsctlError when the connection is lost first."""
        change = asyncio.ensure_future(self._changed.wait())
        await asyncio.wait((change, client.closed), return_when=asyncio.FIRST_COMPLETED)
        if not change.done():
            change.cancel()
            raise VsctlError(f"{self._settings.db}: the database closed the connection")
        self._changed.clear()

    async def _once(self, client: Client, replica: Replica) -> None:
        context = Context(replica.schema, _snapshot(replica), self._writes)
        for command in self._commands:
            command.output = ""
            words.COMMANDS[command.name].run(context, command)
        context.check_symbols()
        changes = context.transaction.changes()
        count = self._settings.wait and bool(changes)
        result = await self._commit(client, context, changes, count)
        for warning in context.warnings:
            _complain(f"warning: {warning}")
        made = {old: new for old, new in result.items() if old != "next_cfg"}
        self._print(made)
        if count and not self._settings.dry_run:
            await self._reloaded(client, replica, int(result["next_cfg"]))
            self._report(context, replica, made)

    async def _commit(
        self, client: Client, context: Context, changes: list[Json], count: bool
    ) -> dict[str, str]:
        """Send it; provisional UUIDs -> those the database gave, "next_cfg" -> its new value."""
        if not changes:
            return {}
        transaction = context.transaction
        operations = [*transaction.prerequisites(), *changes]
        if count:
            operations += transaction.increment("Open_vSwitch", context.root, "next_cfg")
        operations.append({"op": "comment", "comment": f"helio vsctl: {self._text}"})
        if self._settings.dry_run:
            operations.append({"op": "abort"})
        try:
            results = await client.transact(operations)
        except TransactionError as error:
            if error.error == "timed out":
                raise TryAgainError from error
            if error.error == "aborted" and self._settings.dry_run:
                return {}
            raise VsctlError(f"transaction error: {error}") from error
        found: dict[str, str] = {}
        for operation, result in zip(operations, results, strict=False):
            if operation["op"] == "insert":
                found[operation["uuid-name"][3:].replace("_", "-")] = result["uuid"][1]
            elif operation["op"] == "select":
                found["next_cfg"] = str(result["rows"][0]["next_cfg"])
        return found

    def _print(self, made: dict[str, str]) -> None:
        items: list[Table | str] = []
        for command in self._commands:
            output = command.output
            if isinstance(output, str):
                if command.name == "create":
                    output = made.get(output.strip(), output.strip()) + "\n"
                if self._settings.oneline:
                    output = output.removesuffix("\n").replace("\\", "\\\\")
                    output = output.replace("\n", "\\n") + "\n"
            items.append(output)
        sys.stdout.write(render(items, self._settings.style))
        sys.stdout.flush()

    async def _reloaded(self, client: Client, replica: Replica, next_cfg: int) -> None:
        """Until the switch has applied or explained what we changed: cur_cfg >= next_cfg."""
        while not any(
            int(row["cur_cfg"]) >= next_cfg for row in replica.tables["Open_vSwitch"].values()
        ):
            await self._change(client)

    def _report(self, context: Context, replica: Replica, made: dict[str, str]) -> None:
        """What is wrong with the interfaces this line added and the rows it touched."""
        rows = _snapshot(replica)
        for new in context.new_interfaces:
            interface = rows.get("Interface", {}).get(made.get(new, new))
            if interface is None or interface["ofport"] not in ((), (-1,)):
                continue
            name = next(iter(interface["name"]))
            why = next((f": {text}" for text in interface["error"]), "")
            _complain(f"Error detected while setting up '{name}'{why}")
        for table, row in context.transaction.touched():
            data = rows.get(table, {}).get(made.get(row, row), {}) if table in COMPLAINING else {}
            ids = data.get("external_ids", {})
            if isinstance(ids, dict) and COMPLAINT in ids:
                _complain(f'{table} "{next(iter(data["name"]))}": {ids[COMPLAINT]}')


def _snapshot(replica: Replica) -> Snapshot:
    return {
        table: {str(row.uuid): row.data() for row in rows.values()}
        for table, rows in replica.tables.items()
    }
