# SPDX-License-Identifier: Apache-2.0
"""What the demonstrations share: commands are shown before they run, claims held against facts."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable

from tools.lab.capture import Tcpdump
from tools.lab.heliograph import Heliograph
from tools.lab.lab import Lab, LeftoverError, leftovers, sweep
from tools.lab.namespaces import Namespace
from tools.lab.processes import CommandError

PINGS = 3


class Claims:
    """What was announced, held against what happened."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    def __call__(self, true: bool, text: str) -> None:
        print(f"  {'ok ' if true else 'NO:'} {text}")
        if not true:
            self.broken.append(text)


class Stage:
    """A switch without ports, and what one says and does in front of an audience."""

    def __init__(self, lab: Lab, claim: Claims, label: str = "host") -> None:
        self.lab = lab
        self.claim = claim
        self.switch = Heliograph(lab, ephemeral=True, label=label)

    def start(self) -> None:
        rundir = self.switch.rundir
        print(f"$ nsenter --net={self.switch.host.path} helio run --ephemeral --rundir {rundir} &")
        self.switch.start()
        print(f"$ export OVS_RUNDIR={rundir}")

    def vsctl(self, words: str) -> str:
        """Show and run `helio vsctl WORDS`, show and return what it printed."""
        print(f"$ helio vsctl {words}")
        printed = self.switch.helio_vsctl(*shlex.split(words))
        print(printed, end="")
        return printed

    def guest(self, label: str, bridge: str, port: str, address: str | None) -> Namespace:
        """An internal port of a bridge, moved into a namespace where nobody talks unasked."""
        self.vsctl(f"add-port {bridge} {port} -- set interface {port} type=internal")
        made = self.quiet_namespace(label)
        print(f"$ ip link set {port} netns {made.name}   # there up, {address or 'no address'}")
        self.switch.move(port, made, address)
        return made

    def quiet_namespace(self, name: str) -> Namespace:
        made = self.lab.namespace(name)
        with contextlib.suppress(FileNotFoundError):  # a kernel without IPv6
            for devices in "all", "default":
                made.set_sysctl(f"ipv6/conf/{devices}/disable_ipv6", "1")
        return made

    def ping(self, source: Namespace, target: str) -> None:
        print(f"$ nsenter --net={source.path} ping -c {PINGS} {target}")
        answered = source.ping(target, PINGS)
        self.claim(answered == PINGS, f"{answered} of {PINGS} echo requests were answered")

    def tcpdump(self, guest: Namespace, port: str, words: str = "") -> Tcpdump:
        """Show and start a capture on a port's device."""
        print(f"$ nsenter --net={guest.path} tcpdump -n -i {port} {words and repr(words)} &")
        return Tcpdump(self.lab, guest, port, words)

    def finish(self) -> None:
        print("\n$ kill %1   # the switch; --ephemeral takes its devices and programs along")
        self.claim(self.switch.stop() == 0, "helio run ended with exit code 0")
        left = [line.split("@")[0].split()[0] for line in self.devices()]
        self.claim(left == ["lo"], "no device but lo is left in the switch's namespace")

    def devices(self) -> list[str]:
        return self.switch.host.ip("-br link show").splitlines()


def perform(play: Callable[[Lab, Claims], None]) -> int:
    """Run a demonstration in a lab of its own; the exit code says whether all was as announced."""
    if os.geteuid() != 0:
        print("the demo makes network namespaces: run it as root", file=sys.stderr)
        return 4
    sweep()
    claim = Claims()
    lab = Lab()
    try:
        with lab:
            play(lab, claim)
    except (CommandError, LeftoverError) as error:
        claim.broken.append(str(error))
    left = leftovers(lab.token)
    claim(not left, f"everything is removed: namespaces, devices, processes {left or ''}")
    if claim.broken:
        print("\nNot as announced:", *claim.broken, sep="\n  ")
        return 1
    print("\nAll of it was as announced.")
    return 0
