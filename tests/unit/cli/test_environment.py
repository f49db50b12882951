# SPDX-License-Identifier: Apache-2.0
"""Each thing the machine may lack, and the one line that says so."""

from pathlib import Path

import pytest

from heliograph.cli import environment
from heliograph.errors import EnvironmentFaultError

ALL = (1 << 41) - 1


def without(*bits: int) -> str:
    return f"Name:\tx\nCapEff:\t{ALL & ~sum(1 << bit for bit in bits):016x}\n"


@pytest.mark.parametrize(
    ("status", "mounts", "missing"),
    [
        (without(39), True, "CAP_BPF"),
        (without(12), True, "CAP_NET_ADMIN"),
        (without(21), True, "CAP_SYS_ADMIN"),
        (without(12, 39), False, "CAP_BPF, CAP_NET_ADMIN"),
    ],
)
def test_missing_capabilities_are_named(status: str, mounts: bool, missing: str) -> None:
    with pytest.raises(EnvironmentFaultError, match=f"^missing {missing}: run as root"):
        environment.check_capabilities(mounts, status)


def test_mounting_is_not_asked_of_who_does_not_mount() -> None:
    environment.check_capabilities(True, without())
    environment.check_capabilities(False, without(21))


@pytest.mark.parametrize("release", ["6.6.0", "6.18.44-x", "7.0-rc1", "10.1"])
def test_new_enough_kernels(release: str) -> None:
    environment.check_kernel(release)


@pytest.mark.parametrize("release", ["6.5.13-1-amd64", "5.15.0", "strange"])
def test_older_kernels_are_refused(release: str) -> None:
    with pytest.raises(EnvironmentFaultError, match=f"kernel {release} is too old: Linux 6.6"):
        environment.check_kernel(release)


def test_a_missing_library_is_named() -> None:
    with pytest.raises(EnvironmentFaultError, match=r"libnone\.so\.9 cannot be loaded"):
        environment.check_libbpf("libnone.so.9")


def proc(root: Path, **mounts: str) -> Path:
    """A /proc where we are the child of 20, that is of 1; `mounts`: their mount namespaces.

    One that is not given is of a process that may not be asked.
    """
    for process, parent in (("self", "20"), ("20", "1"), ("1", "0")):
        directory = root / "proc" / process / "ns"
        directory.mkdir(parents=True)
        (directory.parent / "stat").write_text(f"7 (a ) b) S {parent} 7 7 0")
        if f"of_{process}" in mounts:
            (directory / "mnt").symlink_to(f"mnt:[{mounts[f'of_{process}']}]")
    net = root / "netns" / "blue"
    net.parent.mkdir()
    net.touch()
    (root / "proc/self/ns/net").symlink_to(net)
    return root / "proc"


@pytest.mark.parametrize(
    "others", [{"of_1": "1"}, {"of_1": "1", "of_20": "2"}, {"of_20": "1"}], ids=str
)
def test_a_private_mount_namespace_is_refused_with_the_way_out(
    tmp_path: Path, others: dict[str, str]
) -> None:
    named = tmp_path / "netns"
    with pytest.raises(EnvironmentFaultError) as caught:
        environment.check_mount_namespace(proc(tmp_path, of_self="2", **others), named)
    assert f"nsenter --net={named}/blue helio run" in str(caught.value)
    assert "--ephemeral" in str(caught.value)


@pytest.mark.parametrize("others", [{"of_1": "2", "of_20": "2"}, {"of_20": "2"}, {}], ids=str)
def test_a_shared_or_unknown_mount_namespace_is_fine(
    tmp_path: Path, others: dict[str, str]
) -> None:
    environment.check_mount_namespace(proc(tmp_path, of_self="2", **others), tmp_path / "netns")
