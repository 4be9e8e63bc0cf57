"""The express lane: datagrams between the processes of one machine (see ``mailbox.py``).

The problem: a Python thread gives up the interpreter's lock for every system call, and beside a thread that computes it
gets the lock back 5 ms later. A round trip has a dozen of such calls, each of them two microseconds long.

So these calls are made with the lock held. They may be, because none of them blocks: a datagram is taken by the kernel
at once or refused. ``ctypes.PyDLL`` calls C functions that way, and costs no more than a socket object.

Rejected: ``sys.setswitchinterval``, which is the program's to choose.
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import sys
from collections.abc import Collection
from contextlib import suppress

LONGEST = 16 * 1024
"""Bytes of a datagram: a receiver that is stopped must not fill what the kernel gives our side."""

SEND_BUFFER = 4 << 20

_libc = ctypes.PyDLL(None)
_sendto = _libc.sendto
_sendto.restype = ctypes.c_ssize_t
_sendto.argtypes = [
    ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
]  # fmt: skip
_recv = _libc.recv
_recv.restype = ctypes.c_ssize_t
_recv.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_poll = _libc.poll
let_others_run = _libc.sched_yield
"""Gives the CPU to another process that wants it, if there is one, and keeps the interpreter's lock."""


class Address(bytes):
    """Of another process's lane."""

    def __new__(cls, path: str) -> Address:
        """Raises OSError when the path is longer than Unix sockets allow."""
        name = os.fsencode(path)
        if len(name) > 107:
            raise OSError(f"the path of a socket has at most 107 bytes, not {len(name)}: {path}")
        return super().__new__(cls, socket.AF_UNIX.to_bytes(2, sys.byteorder) + name + b"\0")

    @property
    def path(self) -> str:
        return os.fsdecode(self[2:-1])


class Lane:
    """One process's end. Sending and receiving may be in different threads; each of them in one at a time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._socket.bind(path)
        self._fd = self._socket.fileno()
        self._memory = ctypes.create_string_buffer(LONGEST)
        self._at = ctypes.addressof(self._memory)
        self._received = memoryview(self._memory).cast("B")

    def fileno(self) -> int:
        return self._fd

    def send(self, address: Address, data: bytes) -> bool:
        """False when there is no room at the receiver's, or nobody."""
        return bool(_sendto(self._fd, data, len(data), 0, address, len(address)) >= 0)

    def receive(self) -> bytes | None:
        """The next datagram, if there is one."""
        size = _recv(self._fd, self._at, LONGEST, 0)
        return bytes(self._received[:size]) if size >= 0 else None

    def close(self) -> None:
        self._socket.close()
        self._fd = -1
        with suppress(FileNotFoundError):  # the supervisor may have removed the folder
            os.unlink(self._path)


class _PollFd(ctypes.Structure):
    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


class Glance:
    """Whether any of some files can be read, right now."""

    def __init__(self, fds: Collection[int]) -> None:
        self._files = (_PollFd * len(fds))(*(_PollFd(fd, select.POLLIN, 0) for fd in fds))
        self._count = len(fds)

    def any_ready(self) -> bool:
        return bool(_poll(self._files, self._count, 0) > 0)
