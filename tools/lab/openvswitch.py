# SPDX-License-Identifier: Apache-2.0
"""The distribution's Open vSwitch, unpacked below .cache/ovs by `make dev`, never installed."""

import os
import shlex
from pathlib import Path
from subprocess import CompletedProcess

from tools.lab.lab import Lab
from tools.lab.namespaces import Namespace
from tools.lab.processes import PATIENCE, answers, eventually, run

UNPACKED = Path(__file__).resolve().parents[2] / ".cache" / "ovs"
_PROGRAMS = {
    "ovs-vswitchd": "usr/lib/openvswitch-switch/ovs-vswitchd",
    "ovsdb-server": "usr/sbin/ovsdb-server",
}


def program(name: str) -> Path:
    """Where a program of Open vSwitch lies. Raises FileNotFoundError that says what to do."""
    path = UNPACKED / _PROGRAMS.get(name, f"usr/bin/{name}")
    if not path.exists():
        raise FileNotFoundError(f"{path} is not there; `make dev` unpacks Open vSwitch")
    return path


def environment(rundir: Path) -> dict[str, str]:
    """The environment in which an ovs-* program finds everything in `rundir`."""
    directories = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVS_SYSCONFDIR"), rundir)
    return os.environ | {name: str(path) for name, path in directories.items()}


class Tools:
    """The real ovs-* tools, pointed at a run directory by OVS_RUNDIR alone, as a user does."""

    def __init__(self, rundir: Path) -> None:
        self.rundir = rundir

    def run(
        self, name: str, *words: str | Path, check: bool = True, timeout: float = PATIENCE
    ) -> CompletedProcess[str]:
        """Run a tool by its name ("ovsdb-client"); raises CommandError if `check` and it fails."""
        env = environment(self.rundir)
        return run([program(name), *words], check=check, timeout=timeout, env=env)

    def vsctl(self, *words: str, timeout: float = PATIENCE) -> str:
        """The real `ovs-vsctl WORDS`; returns what it printed without the last newline.

        One string with blanks is split as a shell would: vsctl("add-br br0"). Raises
        CommandError if it fails.
        """
        split = shlex.split(words[0]) if len(words) == 1 else list(words)
        result = self.run("ovs-vsctl", f"--timeout={timeout:.0f}", *split, timeout=timeout + 10)
        return result.stdout.removesuffix("\n")

    def try_vsctl(self, words: str, timeout: float = PATIENCE) -> CompletedProcess[str]:
        """The same for a command that may fail: exit code, standard output and error."""
        split = shlex.split(words)
        return self.run(
            "ovs-vsctl", f"--timeout={timeout:.0f}", *split, check=False, timeout=timeout + 10
        )


class Database:
    """ovsdb-server with an initialised Open_vSwitch database, in a namespace."""

    def __init__(self, lab: Lab, host: Namespace) -> None:
        self.lab, self.host = lab, host
        self.rundir = lab.path(f"ovs{len(lab.processes)}")
        self.rundir.mkdir()
        self.socket, self._file = self.rundir / "db.sock", self.rundir / "conf.db"
        self.tools = Tools(self.rundir)
        schema = UNPACKED / "usr/share/openvswitch/vswitch.ovsschema"
        self.tools.run("ovsdb-tool", "create", self._file, schema)
        self.start()
        self.tools.vsctl("--no-wait init")

    def start(self) -> None:
        """Start the server (again), until it listens."""
        self.process = self.lab.start(
            self.host,
            program("ovsdb-server"),
            f"--remote=punix:{self.socket}",
            f"--pidfile={self.rundir}/ovsdb-server.pid",
            self._file,
            env=environment(self.rundir),
        )
        assert eventually(lambda: answers(self.socket)), self.process.log_text()

    def stop(self) -> None:
        """End the server; it takes its socket away."""
        self.process.stop()


class UserspaceSwitch:
    """ovsdb-server and ovs-vswitchd with its userspace datapath, in a namespace."""

    def __init__(self, lab: Lab, host: Namespace) -> None:
        database = Database(lab, host)
        self.tools = database.tools
        switch = lab.start(
            host,
            program("ovs-vswitchd"),
            f"unix:{database.socket}",
            f"--pidfile={database.rundir}/ovs-vswitchd.pid",
            env=environment(database.rundir),
        )
        self.processes = [database.process, switch]
        self.tools.vsctl("show")
