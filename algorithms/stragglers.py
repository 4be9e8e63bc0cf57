"""An iteration's tasks, some of which take much longer than the others.

An iteration ends when its last task does, so one slow worker holds up everybody. The tasks here are pure: executed
again they give the same bits. So one that straggles is run once more beside, where a CPU is free for it, and whichever
copy ends first is taken; that changes no result. To go on without those that are late does change results, by who was
late, and is only done when asked for.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from typing import Any

import rlflow.engine as engine

STRAGGLES_AFTER = 2.0
"""Times what the slowest task so far has taken, after which those that have not ended are run a second time."""

log = logging.getLogger(__name__)


def run_all(task: Any, calls: Sequence[tuple[Any, ...]], drop_after: float | None = None) -> list[Any]:
    """Results of ``task.remote(*call)`` for each of ``calls``, in their order.

    Args:
        task: a remote function that is pure.
        drop_after: times what the slowest task so far has taken, after which tasks that have not ended are
            cancelled, if half of all have ended and the others have had a CPU each. Their results are left out.
    """
    began, cpus = time.perf_counter(), engine.cluster_resources().get("CPU", 1)
    pending = [task.remote(*call) for call in calls]
    number = {ref: i for i, ref in enumerate(pending)}
    results: dict[int, Any] = {}
    slowest, patience = 0.0, None
    while len(results) < len(calls):
        ready, pending = engine.wait(pending, timeout=patience)
        for ref in ready:
            results.setdefault(number[ref], engine.get(ref))
            slowest = time.perf_counter() - began
        missing = [i for i in range(len(calls)) if i not in results]
        elapsed = time.perf_counter() - began
        moments = []
        if len(number) == len(calls) and 2 * len(missing) <= cpus:  # not run twice yet, and there is room
            if elapsed > STRAGGLES_AFTER * slowest:
                copies = {task.remote(*calls[i]): i for i in missing}
                number |= copies
                pending += copies
            else:
                moments.append(STRAGGLES_AFTER * slowest)
        if drop_after is not None and 2 * len(missing) <= len(calls) and len(missing) <= cpus:
            if missing and elapsed > drop_after * slowest:
                log.warning(
                    "%d of %d tasks dropped, not having ended after %.1f times what the others took",
                    len(missing), len(calls), elapsed / slowest,
                )
                break
            moments.append(drop_after * slowest)
        patience = max(0.0, min(moments) - elapsed) if moments else None
    for ref in pending:  # the slower copies, and what is dropped
        engine.cancel(ref)
    return [results[i] for i in sorted(results)]
