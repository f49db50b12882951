# SPDX-License-Identifier: Apache-2.0
"""Resident memory of all processes of a switch together."""

from dataclasses import dataclass
from pathlib import Path

from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Tools


@dataclass(frozen=True)
class Memory:
    """Sums over the processes, in MiB."""

    processes: int
    pss: float  # pages shared by several processes count once
    rss: float  # they count in each


def add_ports(tools: Tools, bridge: str, count: int) -> None:
    """Add `count` internal ports mem1, mem2, ... to a bridge in one transaction."""
    commands = [
        f"-- add-port {bridge} mem{number} -- set interface mem{number} type=internal"
        for number in range(1, count + 1)
    ]
    tools.vsctl(" ".join(commands), timeout=60)


def memory(host: Namespace) -> Memory:
    """What the processes that live in a namespace occupy now."""
    pids = host.pids()
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return Memory(len(pids), _mebibytes(rollups, "Pss"), _mebibytes(rollups, "Rss"))


def _mebibytes(rollups: list[str], key: str) -> float:
    lines = [line for text in rollups for line in text.splitlines() if line.startswith(f"{key}:")]
    return sum(int(line.split()[1]) for line in lines) / 1024
