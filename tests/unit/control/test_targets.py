# SPDX-License-Identifier: Apache-2.0
"""Controller.target."""

from pathlib import Path

import pytest

from heliograph.control.targets import Target, TargetError, parse

RUN = Path("/run/x")
GOOD = {
    "tcp:10.0.0.1": Target(listens=False, host="10.0.0.1", port=6653),
    "tcp:10.0.0.1:99": Target(listens=False, host="10.0.0.1", port=99),
    "tcp:[fe80::1%eth0]:99": Target(listens=False, host="fe80::1%eth0", port=99),
    "tcp:[::1]": Target(listens=False, host="::1", port=6653),
    "tcp:name.example": Target(listens=False, host="name.example", port=6653),
    "ptcp:": Target(listens=True, host="", port=6653),
    "ptcp:99": Target(listens=True, host="", port=99),
    "ptcp:99:127.0.0.1": Target(listens=True, host="127.0.0.1", port=99),
    "ptcp::127.0.0.1": Target(listens=True, host="127.0.0.1", port=6653),
    "ptcp:99:[::1]": Target(listens=True, host="::1", port=99),
    "unix:a/b.sock": Target(listens=False, path=RUN / "a/b.sock"),
    "unix:/run/x/b": Target(listens=False, path=RUN / "b"),
    "punix:br0.ctl": Target(listens=True, path=RUN / "br0.ctl"),
    "punix:/run/x/br0.ctl": Target(listens=True, path=RUN / "br0.ctl"),
}
BAD = {
    "tcp:": "names no host",
    "tcp:1.2.3.4:0": "no port is '0'",
    "tcp:1.2.3.4:65536": "no port is '65536'",
    "tcp:1.2.3.4:x": "no port is 'x'",
    "tcp:fe80::1": "in \\[brackets\\]",
    "tcp:[fe80::1": "does not end",
    "tcp:[::1]99": "does not end",
    "unix:": "below /run/x",
    "unix:/etc/passwd": "below /run/x",
    "unix:../x/b": "below /run/x",
    "punix:br1.ctl": "/run/x/br0.WORD",
    "punix:br0.mgmt": "other|another",
    "punix:br0.x.mgmt": "other|another",
    "punix:br0.a/b": "/run/x/br0.WORD",
    "punix:/etc/br0.ctl": "/run/x/br0.WORD",
    "ssl:1.2.3.4": "TLS is not supported",
    "pssl:": "TLS is not supported",
    "": "is no target",
    "tcp": "is no target",
    "udp:1.2.3.4": "is no target",
}


@pytest.mark.parametrize("text", GOOD)
def test_targets_are_read(text: str) -> None:
    assert parse(text, RUN, "br0") == GOOD[text]


@pytest.mark.parametrize("text", BAD)
def test_what_is_wrong_with_a_target_is_said(text: str) -> None:
    with pytest.raises(TargetError, match=BAD[text]):
        parse(text, RUN, "br0")
