# SPDX-License-Identifier: Apache-2.0
"""The words of a line: global options, then commands with their own, separated by `--`."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from heliograph.cli.vsctl import bridges, records, tables, whole
from heliograph.cli.vsctl.context import Command, Context, Needs
from heliograph.cli.vsctl.errors import VsctlError, nearest
from heliograph.ovsdb.schema import Schema

ANY = 1 << 30
DEFAULT_RUNDIR = "/run/heliograph"


def _nothing(schema: Schema, command: Command, needs: Needs) -> None:
    return


@dataclass(frozen=True)
class Syntax:
    """One command; an option that ends in "=" takes a value."""

    least: int
    most: int
    run: Callable[[Context, Command], None]
    need: Callable[[Schema, Command, Needs], None]
    usage: str = ""
    options: tuple[str, ...] = ()


_LAYOUT = bridges.need_layout
_IDS = bridges.need_external_ids
_FAIL_MODE = bridges.need_fail_mode
COMMANDS = {
    "init": Syntax(0, 0, whole.init, _nothing),
    "show": Syntax(0, 0, whole.show, whole.need_show),
    "emer-reset": Syntax(0, 0, whole.emergency_reset, whole.need_emergency_reset),
    "add-br": Syntax(1, 3, bridges.add_bridge, _LAYOUT, "BRIDGE [PARENT VLAN]", ("--may-exist",)),
    "del-br": Syntax(1, 1, bridges.delete_bridge, _LAYOUT, "BRIDGE", ("--if-exists",)),
    "list-br": Syntax(0, 0, bridges.list_bridges, _LAYOUT, "", ("--real", "--fake")),
    "br-exists": Syntax(1, 1, bridges.bridge_exists, _LAYOUT, "BRIDGE"),
    "br-to-vlan": Syntax(1, 1, bridges.bridge_to_vlan, _LAYOUT, "BRIDGE"),
    "br-to-parent": Syntax(1, 1, bridges.bridge_to_parent, _LAYOUT, "BRIDGE"),
    "br-set-external-id": Syntax(2, 3, bridges.set_external_id, _IDS, "BRIDGE KEY [VALUE]"),
    "br-get-external-id": Syntax(1, 2, bridges.get_external_id, _IDS, "BRIDGE [KEY]"),
    "get-fail-mode": Syntax(1, 1, bridges.get_fail_mode, _FAIL_MODE, "BRIDGE"),
    "set-fail-mode": Syntax(2, 2, bridges.set_fail_mode, _FAIL_MODE, "BRIDGE MODE"),
    "del-fail-mode": Syntax(1, 1, bridges.delete_fail_mode, _FAIL_MODE, "BRIDGE"),
    "list-ports": Syntax(1, 1, bridges.list_ports, _LAYOUT, "BRIDGE"),
    "add-port": Syntax(
        *(2, ANY, bridges.add_port, _LAYOUT),
        "BRIDGE PORT [COLUMN[:KEY]=VALUE]...",
        ("--may-exist",),
    ),
    "del-port": Syntax(
        1, 2, bridges.delete_port, _LAYOUT, "[BRIDGE] PORT", ("--if-exists", "--with-iface")
    ),
    "port-to-br": Syntax(1, 1, bridges.port_to_bridge, _LAYOUT, "PORT"),
    "list-ifaces": Syntax(1, 1, bridges.list_interfaces, _LAYOUT, "BRIDGE"),
    "iface-to-br": Syntax(1, 1, bridges.interface_to_bridge, _LAYOUT, "INTERFACE"),
    "comment": Syntax(0, ANY, whole.init, _nothing, "[WORD]..."),
    "get": Syntax(
        *(2, ANY, records.get, records.need_get),
        "TABLE RECORD [COLUMN[:KEY]]...",
        ("--if-exists", "--id="),
    ),
    "list": Syntax(
        *(1, ANY, records.list_records, records.need_list),
        "TABLE [RECORD]...",
        ("--if-exists", "--columns="),
    ),
    "find": Syntax(
        *(1, ANY, records.find, records.need_find),
        "TABLE [COLUMN[:KEY]=VALUE]...",
        ("--columns=",),
    ),
    "set": Syntax(
        *(3, ANY, records.set_record, records.need_set),
        "TABLE RECORD COLUMN[:KEY]=VALUE...",
        ("--if-exists",),
    ),
    "add": Syntax(
        *(4, ANY, records.add, records.need_column),
        "TABLE RECORD COLUMN [KEY=]VALUE...",
        ("--if-exists",),
    ),
    "remove": Syntax(
        *(4, ANY, records.remove, records.need_column),
        "TABLE RECORD COLUMN KEY|VALUE|KEY=VALUE...",
        ("--if-exists",),
    ),
    "clear": Syntax(
        *(3, ANY, records.clear, records.need_clear), "TABLE RECORD COLUMN...", ("--if-exists",)
    ),
    "create": Syntax(
        *(2, ANY, records.create, records.need_create), "TABLE COLUMN[:KEY]=VALUE...", ("--id=",)
    ),
    "destroy": Syntax(
        *(1, ANY, records.destroy, records.need_destroy),
        "TABLE [RECORD]...",
        ("--if-exists", "--all"),
    ),
    "wait-until": Syntax(
        *(2, ANY, records.wait_until, records.need_wait_until),
        "TABLE RECORD [COLUMN[:KEY]=VALUE]...",
    ),
}
# Those that may change rows.
WRITERS = frozenset(
    [
        *("init", "add-br", "del-br", "br-set-external-id", "add-port", "del-port", "emer-reset"),
        *("set", "add", "remove", "clear", "create", "destroy", "set-fail-mode", "del-fail-mode"),
    ]
)

# Global options: True takes a value, False none, None may have one after "=".
OPTIONS: dict[str, bool | None] = {
    "--db": True,
    "--rundir": True,
    "--timeout": True,
    "--format": True,
    "--data": True,
    "--no-wait": False,
    "--dry-run": False,
    "--oneline": False,
    "--retry": False,
    "--no-headings": False,
    "--bare": False,
    "--help": False,
    "--version": False,
    # Where ovs-vsctl logs; we have no log of our own.
    "--no-syslog": False,
    "--syslog-method": True,
    "--syslog-target": True,
    "--verbose": None,
    "--log-file": None,
}
SHORT = {"-t": "--timeout", "-f": "--format", "-d": "--data", "-h": "--help", "-V": "--version"}


@dataclass
class Settings:
    db: str = ""
    wait: bool = True
    dry_run: bool = False
    oneline: bool = False
    retry: bool = False
    timeout: int = 0
    style: tables.Style = field(default_factory=tables.Style)
    answer: str = ""  # "help" or "version" instead of any command


@dataclass
class Line:
    settings: Settings
    commands: list[Command]


def _local_options() -> dict[str, bool]:
    listed = {option for syntax in COMMANDS.values() for option in syntax.options}
    return {option.rstrip("="): option.endswith("=") for option in listed}


def parse(words: Sequence[str]) -> Line:
    """Read a line; VsctlError for what ovs-vsctl would refuse, too."""
    given, rest = _options(words)
    local = {name: value for name, value in given if name not in OPTIONS}
    for name in local:
        if [other for other, _ in given].count(name) > 1:
            raise VsctlError(f"'{name.lstrip('-')}' option specified multiple times")
    settings = _settings([(name, value) for name, value in given if name in OPTIONS])
    return Line(settings, [] if settings.answer else _commands(rest, local))


def _options(words: Sequence[str]) -> tuple[list[tuple[str, str | None]], list[str]]:
    """The options before the first word that is none, as getopt_long(3) reads them."""
    known: dict[str, bool | None] = {**OPTIONS, **_local_options()}
    given: list[tuple[str, str | None]] = []
    rest = list(words)
    while rest and rest[0].startswith("-") and rest[0] != "-":
        word = rest.pop(0)
        if word == "--":
            break
        if not word.startswith("--"):
            given += _short(word, rest)
            continue
        name, equals, value = word.partition("=")
        name = _full_name(name, word, known)
        if known[name] is False and equals:
            raise VsctlError(f"option '{name}' doesn't allow an argument")
        if known[name] and not equals:
            if not rest:
                raise VsctlError(f"option '{name}' requires an argument")
            value, equals = rest.pop(0), "="
        given.append((name, value if equals else None))
    return given, rest


def _short(word: str, rest: list[str]) -> list[tuple[str, str | None]]:
    letter, value = word[:2], word[2:]
    if letter == "-v":
        return []
    if letter not in SHORT:
        raise VsctlError(f"invalid option -- '{letter[1:]}'")
    name = SHORT[letter]
    if not OPTIONS[name]:
        return [(name, None)]
    if not value and not rest:
        raise VsctlError(f"option requires an argument -- '{letter[1:]}'")
    return [(name, value or rest.pop(0))]


def _full_name(name: str, word: str, known: dict[str, bool | None]) -> str:
    if name in known:
        return name
    found = [full for full in known if full.startswith(name)]
    if len(found) == 1:
        return found[0]
    if found:
        raise VsctlError(f"option '{word}' is ambiguous: {', '.join(sorted(found))}")
    raise VsctlError(f"unrecognized option '{word}'{nearest(name, known)}")


def _settings(given: list[tuple[str, str | None]]) -> Settings:
    settings = Settings()
    rundir = os.environ.get("OVS_RUNDIR") or DEFAULT_RUNDIR
    for name, value in given:
        match name, value:
            case "--db", str():
                settings.db = value
            case "--rundir", str():
                rundir = value
            case "--timeout", str():
                if not value.isdecimal():
                    raise VsctlError(f"value {value} on -t or --timeout is invalid")
                settings.timeout = int(value)
            case "--format", str():
                if value not in tables.FORMATS:
                    raise VsctlError(f'unknown output format "{value}"')
                settings.style.format = value
            case "--data", str():
                if value not in tables.DATA:
                    raise VsctlError(f'unknown data format "{value}"')
                settings.style.data = value
            case _:
                _flag(settings, name)
    settings.db = settings.db or f"unix:{rundir}/db.sock"
    return settings


def _flag(settings: Settings, name: str) -> None:
    match name:
        case "--no-wait":
            settings.wait = False
        case "--dry-run":
            settings.dry_run = True
        case "--oneline":
            settings.oneline = True
        case "--retry":
            settings.retry = True
        case "--no-headings":
            settings.style.headings = False
        case "--bare":
            settings.style = tables.Style("list", "bare", headings=False)
        case "--help" | "--version":
            settings.answer = name.lstrip("-")


def _commands(words: list[str], local: dict[str, str | None]) -> list[Command]:
    """Split at `--`; options among the global ones belong to the first command."""
    commands: list[Command] = []
    part: list[str] = []
    for word in [*words, "--"]:
        if word != "--":
            part.append(word)
            continue
        if part or local:
            commands.append(_command(part, local))
        part, local = [], {}
    if not commands:
        raise VsctlError("missing command name (use --help for help)")
    return commands


def _command(words: list[str], options: dict[str, str | None]) -> Command:
    options = dict(options)
    while words and words[0].startswith("-"):
        name, equals, value = words.pop(0).partition("=")
        if name in options:
            raise VsctlError(f"'{name}' option specified multiple times")
        options[name] = value if equals else None
    if not words:
        raise VsctlError("missing command name (use --help for help)")
    name, *arguments = words
    if name not in COMMANDS:
        raise VsctlError(f"unknown command '{name}'; use --help for help{nearest(name, COMMANDS)}")
    syntax = COMMANDS[name]
    _check_options(name, syntax, options)
    if len(arguments) < syntax.least:
        raise VsctlError(f"'{name}' command requires at least {syntax.least} arguments")
    if len(arguments) > syntax.most:
        text = f"'{name}' command takes at most {syntax.most} arguments"
        if any(word.startswith("-") for word in arguments):
            text += ' (note that options must precede command names and follow a "--" argument)'
        raise VsctlError(text)
    return Command(name, arguments, options)


def _check_options(name: str, syntax: Syntax, options: dict[str, str | None]) -> None:
    for option, value in options.items():
        if value is None and f"{option}=" in syntax.options:
            raise VsctlError(f"missing argument to '{option}' option on '{name}' command")
        if value is not None and option in syntax.options:
            raise VsctlError(f"'{option}' option on '{name}' does not accept an argument")
        if f"{option}=" not in syntax.options and option not in syntax.options:
            raise VsctlError(f"'{name}' command has no '{option}' option")


def usage() -> str:
    """What `helio vsctl --help` prints."""
    lines = ["usage: helio vsctl [OPTION]... [--] COMMAND [ARG]... [-- COMMAND [ARG]...]...", ""]
    lines += ["All commands of a line are one transaction. Commands, as in ovs-vsctl(8):"]
    for name, syntax in COMMANDS.items():
        options = "".join(f"[{o}X] " if o.endswith("=") else f"[{o}] " for o in syntax.options)
        lines.append(f"  {options}{name} {syntax.usage}".rstrip())
    lines += [
        "",
        "Options:",
        "  --db=REMOTE          unix:PATH or tcp:HOST:PORT (default unix:RUNDIR/db.sock)",
        "  --rundir=DIR         default $OVS_RUNDIR, else " + DEFAULT_RUNDIR,
        "  --no-wait            do not wait until the switch has applied the change",
        "  -t, --timeout=SECS   give up after so many seconds",
        "  --retry              keep trying to connect",
        "  --dry-run            send the transaction, but have it aborted",
        "  --oneline            the output of each command on one line",
        f"  -f, --format=FORMAT  one of {', '.join(tables.FORMATS)}",
        f"  -d, --data=FORMAT    one of {', '.join(tables.DATA)}",
        "  --no-headings        of tables",
        "  --bare               the same as --format=list --data=bare --no-headings",
    ]
    return "\n".join(lines) + "\n"
