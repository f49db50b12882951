# SPDX-License-Identifier: Apache-2.0
"""The distribution's ovsdb-server and ovs-vsctl, unpacked, as far end and as oracle.

Where they lie: $HELIOGRAPH_OVS, else .cache/ovs of this repository.
"""

import contextlib
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
PATIENCE = 60.0


def unpacked() -> Path:
    root = Path(os.environ.get("HELIOGRAPH_OVS") or REPOSITORY / ".cache/ovs")
    if not (root / "usr/sbin/ovsdb-server").exists():
        raise AssertionError(
            f"no Open vSwitch tools in {root}: unpack the packages openvswitch-common and "
            "openvswitch-switch there (dpkg -x), or name their place in HELIOGRAPH_OVS"
        )
    return root


@dataclass(frozen=True)
class Server:
    """A running stock ovsdb-server with an empty Open_vSwitch database."""

    directory: Path
    process: subprocess.Popen[bytes]

    @property
    def socket(self) -> Path:
        return self.directory / "db.sock"

    @property
    def remote(self) -> str:
        return f"unix:{self.socket}"

    def vsctl(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """The real ovs-vsctl."""
        command = [str(unpacked() / "usr/bin/ovs-vsctl"), f"--db={self.remote}", *words]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )


@contextlib.contextmanager
def server() -> Iterator[Server]:
    root = unpacked()
    # Not pytest's tmp_path: a socket's path may have 107 bytes only.
    with tempfile.TemporaryDirectory(prefix="hg-cli-") as name:
        directory = Path(name)
        database = directory / "conf.db"
        schema = root / "usr/share/openvswitch/vswitch.ovsschema"
        tool = root / "usr/bin/ovsdb-tool"
        subprocess.run([tool, "create", database, schema], check=True, timeout=PATIENCE)
        process = subprocess.Popen(
            [
                root / "usr/sbin/ovsdb-server",
                database,
                f"--remote=punix:{directory}/db.sock",
                f"--unixctl={directory}/ctl",
                "-vconsole:off",
            ],
            stdout=subprocess.DEVNULL,
        )
        try:
            _wait_for(directory / "db.sock")
            yield Server(directory, process)
        finally:
            process.terminate()
            process.wait(PATIENCE)


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.01)
