"""The task history of a run, read from its control store: rows, totals, table and JSON."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .errors import InputError
from .run_folder import RunFolder, shown_path

if TYPE_CHECKING:
    from rlflow.engine.store_reader import StoreReader, TaskHistory


@dataclass
class FunctionTotal:
    """All tasks of one function together."""

    function: str
    count: int = 0
    seconds: float = 0.0
    timed: int = 0
    retried: int = 0
    outcomes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, task: TaskHistory) -> None:
        self.count += 1
        self.retried += task.attempts > 1
        self.outcomes[task.outcome] += 1
        if task.duration is not None:
            self.timed += 1
            self.seconds += task.duration


@contextmanager
def opened_store(folder: RunFolder) -> Iterator[StoreReader]:
    """The run's control store.

    Raises:
        InputError: it has none, or one that cannot be read.
    """
    if not folder.store.is_dir():
        reason = "it ran on the inline engine, or on one started elsewhere"
        raise InputError(f"{shown_path(folder.path)} has no task history: {reason}")
    import lmdb

    from rlflow.engine.store_reader import StoreReader

    try:
        with StoreReader(folder.store) as reader:
            yield reader
    except (OSError, lmdb.Error) as error:
        raise InputError(f"the control store in {shown_path(folder.store)} cannot be read: {error}") from None


def read_history(folder: RunFolder) -> list[TaskHistory]:
    """Every recorded task, actor and call, in the order of submission.

    Raises:
        InputError: the run has no control store.
    """
    with opened_store(folder) as reader:
        return sorted(reader.tasks(), key=lambda task: task.submitted)


@dataclass
class Incidents:
    """What went wrong in a run and was survived, or was only reported."""

    retries: dict[str, list[str]]
    """Why a task (or actor) had to begin again, each time, by its id."""
    hung: list[str]
    """Workers that did not answer, or were in a task for unusually long; without their stacks."""


def read_incidents(folder: RunFolder) -> Incidents:
    """From the audit log.

    Raises:
        InputError: the run has no control store.
    """
    found = Incidents(defaultdict(list), [])
    with opened_store(folder) as reader:
        for event in reader.events():
            if event.kind in ("retried", "rebuilt", "actor restarted"):
                found.retries[event.subject].append(event.detail.partition("\n")[0])
            elif event.kind in ("hung", "overdue"):
                found.hung.append(event.detail.partition("\n")[0].removesuffix(" Its stacks:"))
    return found


def flushed_tasks(folder: RunFolder) -> int:
    """How many tasks the store no longer has, because it had reached its limit.

    Raises:
        InputError: the run has no control store.
    """
    with opened_store(folder) as reader:
        return reader.flushed()


def history_as_json(tasks: Iterable[TaskHistory]) -> str:
    """A JSON list with one object a task."""
    return json.dumps([asdict(task) for task in tasks], indent=1)


def total_by_function(tasks: Iterable[TaskHistory]) -> list[FunctionTotal]:
    """Totals, the functions with the most time first."""
    totals: dict[str, FunctionTotal] = {}
    for task in tasks:
        totals.setdefault(task.function, FunctionTotal(task.function)).add(task)
    return sorted(totals.values(), key=lambda total: -total.seconds)


def print_history(
    console: Console, all_tasks: list[TaskHistory], shown: list[TaskHistory], what: str, flushed: int,
    incidents: Incidents,
) -> None:
    """The tasks in ``shown``, then totals over ``all_tasks``; ``flushed`` older ones are not recorded any more."""
    if shown:
        console.print(_task_table(shown, incidents.retries))
    else:
        console.print(Text(f"no {what}"))
    console.print(Text(f"{len(shown):,} of {len(all_tasks):,} tasks and calls shown", "dim"))
    if flushed:
        console.print(Text(
            f"history was cut: {flushed:,} older ones were dropped when the store reached engine.store_limit", "yellow"
        ))
    for report in incidents.hung:
        console.print(Text(report, "yellow"))
    if all_tasks:
        console.print()
        console.print(_total_table(total_by_function(all_tasks)))


def _task_table(tasks: list[TaskHistory], retries: Mapping[str, list[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("task", no_wrap=True)
    table.add_column("function", overflow="fold")
    table.add_column("attempts", justify="right")
    table.add_column("worker", overflow="fold")
    table.add_column("duration", justify="right", no_wrap=True)
    table.add_column("outcome", overflow="fold")
    for task in tasks:
        outcome = Text(task.outcome, OUTCOME_STYLES.get(task.outcome, ""))
        if task.error:
            outcome.append(f": {task.error}", "default")
        if task.task_id in retries:
            outcome.append(f"; before: {'; '.join(retries[task.task_id])}", "default")
        table.add_row(
            short_id(task.task_id),
            task.function,
            str(task.attempts),
            task.worker or "–",
            shown_duration(task.duration),
            outcome,
        )
    return table


def _total_table(totals: list[FunctionTotal]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("by function", overflow="fold")
    for column in ("count", "total", "mean", "retried", "not finished"):
        table.add_column(column, justify="right", no_wrap=True)
    for total in totals:
        mean = total.seconds / total.timed if total.timed else None
        unfinished = ", ".join(f"{n} {what}" for what, n in total.outcomes.items() if what != "finished")
        table.add_row(
            total.function,
            f"{total.count:,}",
            shown_duration(total.seconds),
            shown_duration(mean),
            str(total.retried),
            unfinished or "–",
        )
    return table


OUTCOME_STYLES = {"finished": "green", "failed": "red", "crashed": "bold red", "cancelled": "dim", "pending": "yellow"}


def short_id(task_id: str) -> str:
    """Both ends of an id: who submitted the task, and its number there. JSON has it whole."""
    return task_id if len(task_id) <= 16 else f"{task_id[:6]}…{task_id[-6:]}"


def shown_duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.1f} ms"
    if seconds < 120:
        return f"{seconds:.2f} s"
    return f"{seconds / 60:.1f} min"
