"""A run's ``log.txt``: what happened, without floods and within a bound.

A message that comes again and again is written a few times and then counted; when it has been quiet, or the log ends,
one line says how often it came. Files are rotated, so that a run of weeks cannot fill the disk.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from pathlib import Path

from . import __version__
from .run_folder import shown_path

log = logging.getLogger("rlflow")

MAX_BYTES, KEPT_FILES = 10 * 2**20, 3
"""Of ``log.txt``, and how many older ones stay beside it: ``log.txt.1``, ..."""

REPEATS, WINDOW = 5, 60.0
"""A message is written so many times in so many seconds."""

_MOST_MESSAGES = 1000
"""Different ones that are remembered."""


class Repetitions(logging.Filter):
    """Lets a message pass :data:`REPEATS` times in :data:`WINDOW` seconds, and says how many it held back.

    What repeats is the text before its arguments are put in, from one place in the code: numbers may differ.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, int, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        key = (record.pathname, record.lineno, str(record.msg))
        now = record.created
        began, count = self._seen.get(key, (now, 0))
        if now - began >= WINDOW:
            if count > REPEATS:
                record.msg = f"{record.msg} (and {count - REPEATS} more like it in {now - began:.0f} s)"
            began, count = now, 0
        if len(self._seen) >= _MOST_MESSAGES and key not in self._seen:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < REPEATS

    def held_back(self) -> list[str]:
        """What is to be said at the end."""
        return [
            f"{message!r} came {count - REPEATS} more times"
            for (_, _, message), (_, count) in self._seen.items() if count > REPEATS
        ]  # fmt: skip


@contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Sends the ``rlflow`` logger to ``path``, and its chatter nowhere else."""
    handler = RotatingFileHandler(path, maxBytes=MAX_BYTES, backupCount=KEPT_FILES, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    repetitions = Repetitions()
    handler.addFilter(repetitions)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.info("rlflow %s, run %s", __version__, shown_path(path.parent))
    try:
        yield
    finally:
        for line in repetitions.held_back():
            handler.emit(log.makeRecord(log.name, logging.INFO, __file__, 0, line, (), None))
        log.setLevel(level)
        log.removeHandler(handler)
        handler.close()
