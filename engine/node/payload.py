"""What the daemon keeps with a task while the scheduler decides where it goes."""

from __future__ import annotations

import msgspec

from ..messages import Failed, Spec


class Payload(msgspec.Struct, eq=False, gc=False):
    """What the daemon keeps with a task."""

    spec: Spec
    raw: msgspec.Raw
    adopted: bool = False
    """Its owner is another than when it was handed out: its worker reports to somebody who is dead."""


def needed_by(spec: Spec) -> list[bytes]:
    """Objects that must exist whenever ``spec`` is run."""
    needed = [*spec.nested]
    for dep in spec.deps:
        needed.append(dep.object_id)
        if dep.value is not None and not isinstance(dep.value, Failed):
            needed += dep.value.refs
    return needed
