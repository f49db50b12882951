# SPDX-License-Identifier: Apache-2.0
"""Controller.target: where to connect to, or where to listen."""

from dataclasses import dataclass
from pathlib import Path

_PORT = 6653
_PORTS = 65535


class TargetError(Exception):
    """Says what is wrong with a target, and how to mend it."""


@dataclass(frozen=True, slots=True)
class Target:
    """Of a Unix socket if `path` is there, else of TCP."""

    listens: bool
    path: Path | None = None
    host: str = ""  # of a listener, "": any address
    port: int = _PORT


def parse(target: str, rundir: Path, bridge: str) -> Target:
    """Raises TargetError."""
    method, colon, rest = target.partition(":")
    match method if colon else "":
        case "tcp":
            host, port = _split(target, rest, host_first=True)
            if not host:
                raise TargetError(f"{target!r} names no host: write tcp:HOST or tcp:HOST:PORT")
            return Target(listens=False, host=host, port=port)
        case "ptcp":
            host, port = _split(target, rest, host_first=False)
            return Target(listens=True, host=host, port=port)
        case "unix":
            return Target(listens=False, path=_below(target, rest, rundir))
        case "punix":
            return Target(listens=True, path=_of_bridge(target, rest, rundir, bridge))
        case "ssl" | "pssl":
            raise TargetError(
                f"{target!r}: TLS is not supported; use tcp, or unix and a proxy that speaks TLS"
            )
    raise TargetError(
        f"{target!r} is no target: write tcp:HOST[:PORT], unix:FILE, ptcp:[PORT][:HOST] "
        "or punix:FILE"
    )


def _split(target: str, text: str, *, host_first: bool) -> tuple[str, int]:
    """Host and port, one or both left out; an IPv6 address stands in brackets."""
    words: list[str] = []
    rest = text
    while rest:
        if rest.startswith("["):
            word, bracket, rest = rest[1:].partition("]")
            if not bracket or (rest and not rest.startswith(":")):
                raise TargetError(f"{target!r}: an address in [brackets] does not end as one")
            rest = rest[1:]
        else:
            word, _, rest = rest.partition(":")
        words.append(word)
    if len(words) > 2:
        raise TargetError(f"{target!r} has too many colons: write an IPv6 address in [brackets]")
    first, second = [*words, "", ""][:2]
    host, port = (first, second) if host_first else (second, first)
    if not port:
        return host, _PORT
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORTS):
        raise TargetError(f"{target!r}: no port is {port!r}; one is a number from 1 to {_PORTS}")
    return host, int(port)


def _below(target: str, name: str, rundir: Path) -> Path:
    """As in Open vSwitch, so that who may write the database reaches no other service."""
    path = rundir / name
    if not name or ".." in path.parts or not path.is_relative_to(rundir):
        raise TargetError(f"{target!r}: the socket has to be below {rundir}")
    return path


def _of_bridge(target: str, name: str, rundir: Path, bridge: str) -> Path:
    path = rundir / name
    good = path.parent == rundir and path.name.startswith(f"{bridge}.")
    # Not that of a bridge br0.x either.
    if not good or path.name.endswith((".mgmt", ".snoop")):
        raise TargetError(
            f"{target!r}: the socket has to be {rundir}/{bridge}.WORD, "
            "with another word than mgmt and snoop"
        )
    return path
