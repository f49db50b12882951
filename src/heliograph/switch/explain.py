# SPDX-License-Identifier: Apache-2.0
"""What is wrong, said on every row that it concerns, and logged once."""

import logging
from collections.abc import Mapping
from uuid import UUID

from heliograph.switch import intent, plan

log = logging.getLogger(__name__)


def faults(found: Mapping[UUID, str], rows: intent.Intent, planned: plan.Plan) -> None:
    """What the kernel refused, by Bridge or Interface row, on every row that it concerns."""
    for bridge in rows.bridges:
        refused = found.get(bridge.uuid)
        outputs = {
            port.uuid: found[interface.uuid]
            for port in bridge.ports
            for interface in port.interfaces
            if interface.uuid in found
        }
        if refused:
            planned.complain(bridge.uuid, refused)
        for mirror in bridge.mirrors:
            if refused:
                planned.complain(mirror.uuid, f"is not in force as it stands here: {refused}")
            if mirror.output_port in outputs:
                fault = outputs[mirror.output_port]
                planned.complain(mirror.uuid, f"its output does not work: {fault}")
    planned.errors.update({row: text for row, text in found.items() if row not in planned.bridges})


def changes(before: plan.Plan, rows: intent.Intent, fresh: plan.Plan) -> None:
    """A change of a row's state is logged once."""
    names = {
        row.uuid: f"{kind} {row.name}"
        for bridge in rows.bridges
        for kind, rows_of_kind in (
            ("bridge", (bridge,)),
            ("port", bridge.ports),
            ("interface", tuple(i for p in bridge.ports for i in p.interfaces)),
            ("mirror", bridge.mirrors),
        )
        for row in rows_of_kind
    }
    old = before.errors | before.problems
    new = fresh.errors | fresh.problems
    for uuid in new.keys() | old.keys():
        if old.get(uuid) == new.get(uuid) or uuid not in names:
            continue
        if uuid in new:
            log.warning("%s: %s", names[uuid], new[uuid])
        else:
            log.info("%s: works now", names[uuid])
