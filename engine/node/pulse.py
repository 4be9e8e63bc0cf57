"""Whom the node has not heard of for long, and who is in a task for far longer than usual. No I/O, no clock of its own.

A process that hangs looks like one that is busy. What tells them apart is that a busy worker answers: a thread of its
own does, as soon as it gets the interpreter's lock, which C code may keep for tens of milliseconds but not for tens
of seconds. So whoever has work and has said nothing for ``silence`` seconds is asked, and who does not answer for as
long again is reported, with its stack. It is not killed: nobody but its user knows whether it is stuck or slow, and a
machine that was suspended for a minute would lose everything.

A task that hangs in a lock of its own, or waits for a peer that is gone, does answer. All that can be said of it is
that it runs for longer than its function usually does. That is reported once, when it is ``MUCH_LONGER`` times as long
and long enough for a person to wonder.

Which call an actor is in only the actor knows. One that runs a call for long sends nothing, is asked, and says so in
its answer; how long its methods usually take is seen from the calls that have ended (:class:`UsualCalls`).

Whether a process was heard of is seen from the number of its frames, which the node counts anyway: no work a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

MUCH_LONGER = 30.0
"""Times the average duration of its function."""

RECENT = 0.2
"""The part of the last call in the average of its method."""

WONDERED_AT = 6.0
"""Times ``silence``; a task is not called long before."""


@dataclass(frozen=True)
class Sign:
    """What the node has of a worker that has work, or is an actor, when it looks."""

    worker: str
    frames: int
    """That it has sent so far."""
    task: bytes = b""
    """The one that runs there, if it is not blocked in ``get``."""
    usual: float | None = None
    """Average duration of its function; None: it was never measured."""


@dataclass
class Findings:
    """What is to be done."""

    ask: list[str] = field(default_factory=list)
    silent: list[tuple[str, float]] = field(default_factory=list)
    """Who does not answer, and for how long it has not been heard; once for each silence."""
    back: list[str] = field(default_factory=list)
    """Who was reported as silent and has been heard again."""
    overdue: list[tuple[str, float]] = field(default_factory=list)
    """Who is in a task for much longer than is usual for it, and for how long; once for each task."""


@dataclass
class _Patient:
    frames: int
    heard: float
    asked: float | None = None
    reported: bool = False
    task: bytes = b""
    since: float = 0.0
    overdue: bool = False


class Pulse:
    """See the module's essay. ``silence`` is in seconds."""

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._patients: dict[str, _Patient] = {}

    def look(self, now: float, signs: Iterable[Sign]) -> Findings:
        """``signs``: of all that are to be looked after now; others are forgotten."""
        findings = Findings()
        before, self._patients = self._patients, {}
        for sign in signs:
            patient = before.get(sign.worker)
            if patient is None:
                patient = _Patient(sign.frames, now)
            self._patients[sign.worker] = patient
            self._listen(now, sign, patient, findings)
            self._time(now, sign, patient, findings)
        return findings

    def is_silent(self, worker: str) -> bool:
        """Whether it has been reported and not been heard since."""
        patient = self._patients.get(worker)
        return patient is not None and patient.reported

    def _listen(self, now: float, sign: Sign, patient: _Patient, findings: Findings) -> None:
        if sign.frames != patient.frames:
            if patient.reported:
                findings.back.append(sign.worker)
            patient.frames, patient.heard = sign.frames, now
            patient.asked, patient.reported = None, False
        elif patient.asked is None:
            if now - patient.heard >= self._silence:
                patient.asked = now
                findings.ask.append(sign.worker)
        elif not patient.reported and now - patient.asked >= self._silence:
            patient.reported = True
            findings.silent.append((sign.worker, now - patient.heard))

    def _time(self, now: float, sign: Sign, patient: _Patient, findings: Findings) -> None:
        if sign.task != patient.task:
            patient.task, patient.since, patient.overdue = sign.task, now, False
        elif sign.task and sign.usual is not None and not patient.overdue and not patient.reported:
            lasts = now - patient.since
            if lasts >= much_longer(sign.usual, self._silence):
                patient.overdue = True
                findings.overdue.append((sign.worker, lasts))


class UsualCalls:
    """How long the calls of living actors take, by method; and which of them takes far longer, once for each."""

    def __init__(self, silence: float) -> None:
        self._silence = silence
        self._averages: dict[bytes, dict[str, float]] = {}
        self._overdue: dict[bytes, bytes] = {}
        """By actor: the call of which that has been said."""

    def follow(self, actor: bytes) -> None:
        self._averages[actor] = {}

    def forget(self, actor: bytes) -> None:
        self._averages.pop(actor, None)
        self._overdue.pop(actor, None)

    def ended(self, actor: bytes, method: str, duration: float) -> None:
        """A call of this method took ``duration`` seconds."""
        averages = self._averages.get(actor)
        if averages is not None:
            average = averages.get(method)
            averages[method] = duration if average is None else average + RECENT * (duration - average)

    def is_overdue(self, actor: bytes, call: bytes, method: str, lasts: float) -> bool:
        """Whether that is to be said now."""
        usual = self._averages.get(actor, {}).get(method)
        if usual is None or self._overdue.get(actor) == call or lasts < much_longer(usual, self._silence):
            return False
        self._overdue[actor] = call
        return True


def much_longer(usual: float, silence: float) -> float:
    """Seconds after which a task or call is overdue."""
    return max(MUCH_LONGER * usual, WONDERED_AT * silence)
