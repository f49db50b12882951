# SPDX-License-Identifier: Apache-2.0
"""`helio`: the words of the command line, and which process they become.

Each subcommand imports what it needs when it runs: the supervisor must not pay for asyncio,
nor `helio vsctl` for the switch.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from heliograph import __version__
from heliograph.errors import HeliographError, UsageError

RUNDIR = Path("/run/heliograph")
DBFILE = Path("/var/lib/heliograph/conf.db")
LOG_LEVELS = ("debug", "info", "warning", "error")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try '{self.prog} --help')")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="helio", description="A virtual switch whose speciality is mirroring.")
    parser.add_argument("--version", action="version", version=f"helio {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    rundir = _Parser(add_help=False)
    rundir.add_argument(
        "--rundir",
        type=Path,
        metavar="DIR",
        default=Path(os.environ.get("OVS_RUNDIR") or RUNDIR),  # as every ovs-* tool does
        help=f"default $OVS_RUNDIR, else {RUNDIR}",
    )
    logs = _Parser(add_help=False)
    logs.add_argument("--log-level", choices=LOG_LEVELS, default="info")
    logs.add_argument("--log-json", action="store_true", help="one JSON object per event")
    store = _Parser(add_help=False)
    kept = store.add_mutually_exclusive_group()
    kept.add_argument("--dbfile", type=Path, metavar="FILE", help=f"default {DBFILE}")
    kept.add_argument(
        "--ephemeral", action="store_true", help="database in memory, data plane gone on exit"
    )

    run = commands.add_parser(
        "run", parents=[rundir, store, logs], help="run the switch and its database, foreground"
    )
    run.add_argument("--ovs", action="store_true", help="listen where a bare ovs-vsctl looks, too")
    database = commands.add_parser(
        "db", parents=[rundir, store, logs], help="the database alone (helio run starts it)"
    )
    database.add_argument(
        "--also", type=Path, action="append", default=[], metavar="SOCKET", help="listen there too"
    )
    switch = commands.add_parser(
        "switch", parents=[rundir, logs], help="the switch alone, on any OVSDB server"
    )
    switch.add_argument("--db", metavar="REMOTE", help="default unix:RUNDIR/db.sock")
    switch.add_argument("--ephemeral", action="store_true", help="data plane gone on exit")
    commands.add_parser(
        "teardown", parents=[rundir], help="remove everything a stopped switch left in the kernel"
    )
    show = commands.add_parser(
        "show", parents=[rundir], help="bridges, ports, mirrors with live counters, what is wrong"
    )
    show.add_argument("--db", metavar="REMOTE", help="default unix:RUNDIR/db.sock")
    show.add_argument("--json", action="store_true", help="for programs")
    commands.add_parser(
        "vsctl", add_help=False, help="the grammar of ovs-vsctl (helio vsctl --help)"
    )
    return parser


def _serve_database(options: argparse.Namespace) -> int:
    from heliograph.cli import daemons  # noqa: PLC0415  (asyncio)

    dbfile = None if options.ephemeral else options.dbfile or DBFILE
    daemons.database(options.rundir, dbfile, options.also)
    return 0


def _serve_switch(options: argparse.Namespace) -> int:
    from heliograph.cli import daemons  # noqa: PLC0415  (asyncio)

    rundir = options.rundir
    daemons.switch(options.db or f"unix:{rundir}/db.sock", rundir, options.ephemeral)
    return 0


def _supervise(options: argparse.Namespace) -> int:
    from heliograph.cli import run  # noqa: PLC0415

    return run.run(
        run.Settings(
            rundir=options.rundir.absolute(),
            dbfile=None if options.ephemeral else (options.dbfile or DBFILE).absolute(),
            ovs=options.ovs,
            log_level=options.log_level,
            log_json=options.log_json,
        )
    )


def _teardown(options: argparse.Namespace) -> int:
    from heliograph.cli import rundir  # noqa: PLC0415

    where = options.rundir
    with rundir.unheld(where):
        from heliograph.switch import process  # noqa: PLC0415

        for line in process.teardown(where) or [f"there was nothing to remove of {where}"]:
            print(line)
    return 0


def _show(options: argparse.Namespace) -> int:
    from heliograph.cli import show  # noqa: PLC0415

    rundir = options.rundir
    return show.show(options.db or f"unix:{rundir}/db.sock", rundir, options.json)


def _dispatch(words: Sequence[str]) -> int:
    if words[:1] == ["vsctl"]:
        # argparse would eat `--` and refuse `--id=@x`: the grammar is not ours to parse here.
        from heliograph.cli.vsctl import session  # noqa: PLC0415

        return session.main(list(words[1:]))
    options = _parser().parse_args(words)
    if hasattr(options, "log_level"):
        from heliograph import log  # noqa: PLC0415

        log.configure(options.log_level, options.log_json)
    handlers = {
        "run": _supervise,
        "db": _serve_database,
        "switch": _serve_switch,
        "teardown": _teardown,
        "show": _show,
    }
    return handlers[options.command](options)


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; the exit code (design.md: 0 done, 1 failed, 2 usage, 3 running, 4 machine).

    Whatever is no HeliographError is our bug and ends in a traceback.
    """
    try:
        code = _dispatch(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        return code
    except HeliographError as error:
        print(f"helio: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; the interpreter must not try again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


if __name__ == "__main__":
    sys.exit(main())
