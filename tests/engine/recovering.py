"""Actors that die at chosen points, and what the engine noted of their restarts."""

import os
import re
import signal

from crashing import die_at_first
from waiting import is_gone, wait_for

from rlflow import engine
from rlflow.engine import api
from rlflow.engine.store_reader import StoreReader

POINTS = ["before it has run", "when it has run", "before it is logged"]


class DeadlyToSend:
    """A result that kills the actor while it is pickled: the method has ended, and nobody has heard of it."""

    def __init__(self, path, value):
        self.path = path
        self.value = value

    def __reduce__(self):
        die_at_first(self.path, 1, "is_killed")
        return int, (self.value,)


@engine.remote
class Ledger:
    """Its state tells which calls it has run, in which order."""

    def __init__(self, folder=None):
        self.folder = folder
        self.entries = []

    def add(self, entry, point=None):
        """Adds, and returns how many there are; dies at ``point``, the first time."""
        path = None if self.folder is None else self.folder / f"death at {entry}"
        if point == "before it has run":
            die_at_first(path, 1, "is_killed")
        self.entries.append(entry)
        if point == "when it has run":
            die_at_first(path, 1, "is_killed")
        if point == "before it is logged":
            return DeadlyToSend(path, len(self.entries))
        return len(self.entries)

    def all(self):
        return list(self.entries)

    def pid(self):
        return os.getpid()


def kill(actor):
    """Kills the process of an actor that has the method ``pid``; returns when it has ended."""
    pid = engine.get(actor.pid.remote())
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: is_gone(pid), "the actor's process ends")


def events(kind, actor):
    """Details of what the engine noted of an actor."""
    with StoreReader(api.current_backend().session.store) as store:
        return [event.detail for event in store.events() if (event.kind, event.subject) == (kind, actor_id(actor))]


def replayed(actor):
    """How many calls each restart of the actor has run again."""
    return [int(re.search(r"with (\d+) calls replayed", detail)[1]) for detail in events("actor restored", actor)]


def actor_id(actor):
    return actor._info.actor_id.hex()
