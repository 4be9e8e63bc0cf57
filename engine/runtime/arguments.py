"""Arguments on their way into a spec: values pickled, refs at top level turned into deps, large ones stored once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from .. import messages as m
from ..refs import ObjectRef
from ..serialization import dump_arguments

if TYPE_CHECKING:
    from .process import ProcessBackend

WHOLE = -1
"""Slot of a dep that stands for all arguments at once, because they are too large for a spec."""


class Packed(NamedTuple):
    args: m.Inline | None
    deps: list[m.Dep]
    nested: list[bytes]
    pins: list[ObjectRef]
    """Refs to keep until the task's reply says what the worker retained."""


NOTHING = Packed(None, [], [], [])


def pack_arguments(process: ProcessBackend, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Packed:
    """Pickles ``args`` and ``kwargs``; raises SerializationError that names the part that failed."""
    deps: list[m.Dep] = []
    pins: list[ObjectRef] = []
    if ObjectRef in map(type, args):
        pins += [value for value in args if type(value) is ObjectRef]
        deps += [_dep(process, i, value) for i, value in enumerate(args) if type(value) is ObjectRef]
        args = tuple(None if type(value) is ObjectRef else value for value in args)
    if kwargs and ObjectRef in map(type, kwargs.values()):
        pins += [value for value in kwargs.values() if type(value) is ObjectRef]
        deps += [_dep(process, name, value) for name, value in kwargs.items() if type(value) is ObjectRef]
        kwargs = {name: None if type(value) is ObjectRef else value for name, value in kwargs.items()}
    serialized = dump_arguments(args, kwargs)
    nested: list[bytes] = []
    if serialized.refs:
        for ref in serialized.refs:
            process.objects.escape(ref)
            nested.append(ref.binary())
        pins += serialized.refs
    value = process.storage.pack(serialized)
    if isinstance(value, m.Inline):
        return Packed(value, deps, nested, pins)
    ref = process.own_put(value, serialized.refs)
    return Packed(None, [m.Dep(WHOLE, ref.binary(), value), *deps], nested, [*pins, ref])


def _dep(process: ProcessBackend, slot: int | str, ref: ObjectRef) -> m.Dep:
    (entry,) = process.entries_of((ref,))
    return m.Dep(slot, ref.binary(), entry.value)
