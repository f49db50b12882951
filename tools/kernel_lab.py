# SPDX-License-Identifier: Apache-2.0
"""Runs a command of this machine under another kernel, in a virtual machine without a network.

    apt-get download linux-image-6.12.107+deb12-amd64
    python -m tools.kernel_lab linux-image-6.12*.deb .venv/bin/python -m pytest -q tests/packet

The machine's root is this one's, read-only over 9p below a tmpfs that takes all writes, so nothing
it does is left; do not edit what it reads meanwhile. It is emulated, about ten times slower than
this one: some system tests give up waiting there. Needs root, and 4 GiB of memory.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

NEED = ["qemu-system-x86", "busybox-static", "xz-utils"]
BUSYBOX = Path("/usr/bin/busybox")
MODULES = (  # what networking and the root file system may want
    "kernel/net kernel/lib kernel/crypto kernel/arch/x86/crypto kernel/fs/9p kernel/fs/netfs "
    "kernel/fs/fscache kernel/fs/overlayfs kernel/drivers/virtio kernel/drivers/net/veth.ko* "
    "kernel/drivers/net/tun.ko* kernel/drivers/net/dummy.ko* kernel/drivers/net/vxlan"
).split()
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mkdir -p /proc /sys /host /writes /new
mount -t proc proc /proc
for module in virtio_pci 9pnet_virtio 9p overlay; do modprobe -q $module; done
mount -t 9p -o trans=virtio,version=9p2000.L,msize=524288,cache=loose,ro host /host
mount -t tmpfs writes /writes
mkdir /writes/upper /writes/work
mount -t overlay -o lowerdir=/host,upperdir=/writes/upper,workdir=/writes/work none /new
mount -t proc proc /new/proc
mount -t sysfs sys /new/sys
mount -t devtmpfs dev /new/dev
mkdir -p /new/dev/pts /new/dev/shm /new/lib/modules
mount -t devpts devpts /new/dev/pts
for place in dev/shm run; do mount -t tmpfs tmpfs /new/$place; done
mount --bind /lib/modules /new/lib/modules
mkdir -p /sbin
ln -s /bin/busybox /sbin/modprobe
ip link set lo up
export HOME=/root PATH={path}
chroot /new /bin/sh -c {command}
echo "exit code $?"
poweroff -f
"""
EXIT = re.compile(r"^exit code (\d+)\r?$")


def unpack(package: Path, folder: Path) -> Path:
    """Fill folder/root with busybox and the package's modules; returns the kernel."""
    subprocess.run(["dpkg-deb", "-x", package, folder / "package"], check=True)
    (kernel,) = (folder / "package" / "boot").glob("vmlinuz-*")
    (source,) = (folder / "package").glob("**/lib/modules/*")
    target = folder / "root" / "lib" / "modules" / source.name
    wanted = [found for pattern in MODULES for found in source.glob(pattern)]
    files = [file for found in wanted for file in [found, *found.rglob("*")] if file.is_file()]
    for file in [*files, *source.glob("modules.builtin*"), source / "modules.order"]:
        copy = target / file.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, copy)
    packed = [str(file) for file in target.rglob("*.ko.xz")]
    if packed:
        subprocess.run(["xz", "-d", "-T0", *packed], check=True)
    subprocess.run([BUSYBOX, "depmod", "-b", folder / "root", source.name], check=True)
    (folder / "root" / "bin").mkdir()
    shutil.copy(BUSYBOX, folder / "root" / "bin" / "busybox")
    return kernel


def archive(root: Path) -> bytes:
    """A directory as the kernel takes it for its first root: cpio's "newc" form."""
    made = bytearray()

    def put(name: str, mode: int, data: bytes = b"", device: tuple[int, int] = (0, 0)) -> None:
        path = name.encode() + b"\0"
        fields = (len(made), mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
        made.extend(b"070701" + b"".join(b"%08X" % field for field in fields) + path)
        for part in b"", data:
            made.extend(part + bytes(-(len(made) + len(part)) % 4))

    for path in sorted(root.rglob("*")):
        name = str(path.relative_to(root))
        put(name, 0o40755) if path.is_dir() else put(name, 0o100755, path.read_bytes())
    put("dev", 0o40755)
    put("dev/console", 0o20600, device=(5, 1))
    put("TRAILER!!!", 0)
    return bytes(made)


def boot(kernel: Path, initial: Path) -> int:
    """Run the machine with its console on ours; returns the exit code of the command."""
    machine = "-accel tcg,thread=multi -cpu max -smp 2 -m 4096 -nographic -no-reboot -nic none"
    shared = "local,id=host,path=/,readonly=on,security_model=none,multidevs=remap"
    words = ["qemu-system-x86_64", *machine.split()]
    words += ["-kernel", str(kernel), "-initrd", str(initial)]
    words += ["-append", "console=ttyS0 quiet panic=-1 nowatchdog"]
    words += ["-fsdev", shared, "-device", "virtio-9p-pci,fsdev=host,mount_tag=host"]
    code = 1  # of a machine that did not get so far
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=pipe, text=True) as running:
        assert running.stdout is not None
        for line in running.stdout:
            print(line, end="", flush=True)
            if found := EXIT.match(line):
                code = int(found[1])
    return code


def main(package: str, *command: str) -> int:
    """The whole; the command runs in the current directory."""
    subprocess.run([Path(__file__).with_name("need_packages"), *NEED], check=True)
    inside = f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(command)}"
    with tempfile.TemporaryDirectory(prefix="kernel-lab-", dir="/var/tmp") as name:
        folder = Path(name)
        kernel = unpack(Path(package), folder)
        init = INIT.format(path=shlex.quote(os.environ["PATH"]), command=shlex.quote(inside))
        (folder / "root" / "init").write_text(init)
        initial = folder / "initial"
        initial.write_bytes(archive(folder / "root"))
        return boot(kernel, initial)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python -m tools.kernel_lab KERNEL.deb COMMAND...")
    sys.exit(main(*sys.argv[1:]))
