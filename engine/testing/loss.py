"""Losing the memory of objects, as a cleaner of /dev/shm would take it: to see whether a program gets over it."""

from __future__ import annotations

from collections.abc import Sequence

from .. import api
from ..messages import Shm
from ..refs import ObjectRef
from ..runtime.process import ProcessBackend
from ..store.segment import Folders


def lose(refs: ObjectRef | Sequence[ObjectRef]) -> list[str]:
    """Deletes the files in which these large objects of this process are, with all else that is in them.

    Processes that have read from a file before still see it; this one does no more. Returns the names of the files.

    Raises:
        ValueError: an object is not there yet, is small, or the engine is the inline one: there is no memory to lose.
    """
    backend = api.current_backend()
    segments: list[str] = []
    for ref in [refs] if isinstance(refs, ObjectRef) else refs:
        value = backend.entries_of((ref,))[0].value if isinstance(backend, ProcessBackend) else None
        if not isinstance(backend, ProcessBackend) or not isinstance(value, Shm):
            raise ValueError(f"{ref!r} has no memory of its own that could be lost (it is small, or not there yet)")
        where = backend.addresses.current(ref.binary(), value)  # it may have gone to disk, or be lost already
        if isinstance(where, Shm) and where.segment not in segments:
            segments.append(where.segment)
    assert isinstance(backend, ProcessBackend)
    for segment in segments:
        Folders.of(backend.session).path(segment).unlink(missing_ok=True)
        backend.storage.reader.forget_segment(segment)
    return segments
