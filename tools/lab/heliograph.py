# SPDX-License-Identifier: Apache-2.0
"""A Heliograph switch in a namespace, run as a user runs it."""

import os
import signal
import sysconfig
from pathlib import Path
from subprocess import CompletedProcess

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.openvswitch import Database
from tools.lab.processes import PATIENCE, Process, run

HELIO = Path(sysconfig.get_path("scripts")) / "helio"


class Heliograph:
    """`helio run` in a namespace of its own, with its run directory and database file.

    It may be stopped (or killed) and started again; run directory and database stay.
    """

    PROGRAM = HELIO

    def __init__(self, lab: Lab, *, ephemeral: bool = False, label: str = "host") -> None:
        self.lab = lab
        self.host = lab.namespace(label)
        self.rundir = lab.path(label)
        self.dbfile = lab.path(f"{label}.db")
        self._store = ["--ephemeral"] if ephemeral else ["--dbfile", str(self.dbfile)]
        self._process: Process | None = None

    @property
    def process(self) -> Process:
        assert self._process is not None, "the switch was not started"
        return self._process

    def start(self, *options: str, timeout: float = PATIENCE) -> None:
        """`helio run OPTIONS`, until it says `ready`. Raises CommandError with its log if not."""
        words = ["run", "--rundir", str(self.rundir), *self._store, *options]
        self._process = self.lab.start(self.host, HELIO, *words)
        self._process.wait_for_line("ready", timeout)

    def stop(self) -> int:
        """SIGTERM, as an init system does; returns the exit code."""
        return self.process.stop(signal.SIGTERM)

    def child(self, word: str) -> int:
        """The process number of the running `helio WORD` ("db", "switch") of this run directory."""
        for pid in self.host.pids():
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
            if word in words and str(self.rundir) in words:
                return pid
        raise LookupError(f"helio {word} does not run")

    def words(self, *options: str) -> list[str | Path]:
        """The command line of `helio run OPTIONS` here, for who runs it in his own way."""
        return [HELIO, "run", "--rundir", self.rundir, *self._store, *options]

    def helio(
        self, *words: str | Path, check: bool = True, timeout: float = PATIENCE
    ) -> CompletedProcess[str]:
        """Run any `helio` command in the switch's namespace, for example helio("show")."""
        return self.host.run(HELIO, *words, check=check, timeout=timeout)

    def helio_vsctl(self, *words: str, check: bool = True) -> str:
        """`helio vsctl` on this switch, found by OVS_RUNDIR; returns what it printed."""
        env = os.environ | {"OVS_RUNDIR": str(self.rundir)}
        return run([HELIO, "vsctl", *words], check=check, env=env).stdout

    def teardown(self) -> None:
        self.helio("teardown", "--rundir", self.rundir)

    def move(self, port: str, guest: Namespace, address: str | None = None) -> None:
        """Move an internal port's device into a guest, there up and, if given, with an address."""
        self.host.ip(f"link set {port} netns {guest.name}")
        if address is not None:
            guest.ip(f"address add {address} dev {port}")
            # Else a neighbour is asked again 5 s after it was heard of, amid what a test counts.
            guest.set_sysctl(f"ipv4/neigh/{port}/delay_first_probe_time", "60")
        guest.ip(f"link set {port} up")
        self.host.going()


class StockSwitch(Heliograph):
    """`helio switch` by itself, on a database that is not ours."""

    def __init__(self, lab: Lab, database: Database) -> None:
        self.lab, self.database = lab, database
        self.host = database.host
        self.rundir = lab.path("switch")
        self.rundir.mkdir()
        self._process = None

    def launch(self) -> Process:
        """Start it, and wait for nothing."""
        words = ["switch", "--rundir", str(self.rundir), "--db", f"unix:{self.database.socket}"]
        self._process = self.lab.start(self.host, HELIO, *words)
        return self._process

    def start(self, *options: str, timeout: float = PATIENCE) -> None:
        """Start it, until it says `ready`. Raises CommandError with its log if not."""
        assert not options, "it has none"
        self.launch().wait_for_line("ready", timeout)
