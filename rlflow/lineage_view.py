"""What a person sees of actors and of lineage: a table, and a tree of what made an object from what."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from .errors import InputError
from .run_folder import RunFolder, shown_path
from .task_history import OUTCOME_STYLES, opened_store, short_id, shown_duration

if TYPE_CHECKING:
    from rlflow.engine.lineage import Producer
    from rlflow.engine.store_reader import StoreReader, TaskHistory

RETURN_DIGITS = 4
"""Of an object's id in hexadecimal: which of its task's returns it is."""

MOST_SHOWN = 5
"""Candidates named when an id is ambiguous."""


@dataclass
class ActorHistory:
    """One actor of a run."""

    actor_id: str
    name: str
    worker: str
    calls: int
    restarts: int
    state: str
    """``"started"``, ``"dead"``, ``"failed"`` (its ``__init__`` raised), ``"crashed"`` or ``"pending"``."""
    detail: str
    """How it ended."""


def read_actors(folder: RunFolder) -> list[ActorHistory]:
    """The actors of a run, in the order of their creation.

    Raises:
        InputError: the run has no control store.
    """
    with opened_store(folder) as reader:
        calls: Counter[str] = Counter()
        created: list[TaskHistory] = []
        for task in reader.tasks():
            if task.kind == "actor":
                created.append(task)
            elif task.actor_id is not None:
                calls[task.actor_id] += 1
        restarts: Counter[str] = Counter()
        ends: dict[str, str] = {}
        for event in reader.events():
            if event.kind == "actor restarted":
                restarts[event.subject] += 1
            elif event.kind == "actor died":
                ends[event.subject] = _reason(event.detail)
    created.sort(key=lambda task: task.submitted)
    return [
        ActorHistory(
            actor_id=task.task_id, name=task.function, worker=task.worker, calls=calls[task.task_id],
            restarts=restarts[task.task_id], state=_state(task, task.task_id in ends),
            detail=ends.get(task.task_id, ""),
        )
        for task in created
    ]  # fmt: skip


def _reason(death: str) -> str:
    """What is left of ``actor Learner (3f09…) is dead: it was killed``, in a row that says the rest."""
    first, _, rest = death.partition(" is dead: ")
    return rest if rest and first.startswith("actor ") else death


def _state(creation: TaskHistory, ended: bool) -> str:
    if creation.outcome == "finished":
        return "dead" if ended else "started"
    return creation.outcome


def print_actors(console: Console, actors: list[ActorHistory]) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("actor", "class", "worker"):
        table.add_column(column, overflow="fold")
    for column in ("calls", "restarts"):
        table.add_column(column, justify="right")
    table.add_column("state", overflow="fold")
    for actor in actors:
        state = Text(actor.state, "" if actor.state == "started" else "yellow")
        if actor.detail:
            first, _, more = actor.detail.partition("\n")
            state.append(f": {first}{' …' if more else ''}", "default")
        table.add_row(
            short_id(actor.actor_id), actor.name, actor.worker or "–", f"{actor.calls:,}", str(actor.restarts), state
        )
    console.print(table if actors else Text("no actors"))


def read_lineage(folder: RunFolder, text: str) -> Producer:
    """What made the object, task or actor that ``text`` names.

    Raises:
        InputError: the run has no control store, or ``text`` names nothing in it or several things.
    """
    from rlflow.engine.lineage import find_id, lineage

    with opened_store(folder) as reader:
        try:
            found = find_id(reader, text)
        except ValueError as error:
            raise InputError(str(error)) from None
        if len(found) != 1:
            raise InputError(_which(folder, text, found, reader))
        return lineage(reader, found[0])


def _which(folder: RunFolder, text: str, found: list[bytes], reader: StoreReader) -> str:
    if not found:
        where = shown_path(folder.path)
        return f"nothing in {where} has the id {text}; its ids are what 'rlflow tasks {where}' lists"
    named = (reader.task(task) for task in found[:MOST_SHOWN])
    names = ", ".join(f"{task.task_id} ({task.function})" for task in named if task is not None)
    more = f", and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return f"{text} is the beginning of {len(found)} ids: {names}{more}"


def print_lineage(console: Console, producer: Producer, depth: int) -> None:
    """A tree: below each object what it was made from, ``depth`` steps back."""
    tree = Tree(_label(producer), guide_style="dim")
    stack = [(producer, tree, 0)]
    while stack:
        node, branch, level = stack.pop()
        if level == depth and node.made_from:
            branch.add(Text("… --depth shows more", "dim"))
            continue
        below = [(parent, branch.add(_label(parent)), level + 1) for parent in node.made_from]
        stack += reversed(below)
    console.print(tree)


def _label(producer: Producer) -> Text:
    task_id, index = producer.object_id[:-RETURN_DIGITS], int(producer.object_id[-RETURN_DIGITS:], 16)
    text = Text(short_id(task_id) + (f"[{index}] " if index else " "), "dim")
    if producer.seen:
        return text.append("as above", "dim")
    task = producer.task
    if task is None:
        by = producer.put_by
        return text.append(f"put by {by.function} ({short_id(by.task_id)})" if by else "put by the driver, or unknown")
    text.append(task.function, "bold")
    text.append(f" · {task.kind} on {task.worker or '–'}, {shown_duration(task.duration)}, ")
    text.append(task.outcome, OUTCOME_STYLES.get(task.outcome, ""))
    if task.attempts > 1:
        text.append(f", attempt {task.attempts}", "yellow")
    return text


def lineage_as_json(producer: Producer) -> str:
    return json.dumps(asdict(producer), indent=1)


__all__ = ["ActorHistory", "lineage_as_json", "print_actors", "print_lineage", "read_actors", "read_lineage"]
