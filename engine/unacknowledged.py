"""What was sent to a process and may be lost if that dies: kept until it says that it is safe (guarantee 1).

The sender asks for the acknowledgement, in a frame that goes anyway: ``WantAcknowledgement`` is added once a few dozen
frames or enough bytes have gone since the last one. The node handles it like any message, so its answer leaves after
the commit of all that came before; it knows nothing of frames and bytes, and no task costs a message more.
"""

from __future__ import annotations

from collections import deque

from . import messages as m

FRAMES_PER_ASKING = 64
BYTES_PER_ASKING = 1 << 20


class Unacknowledged:
    """Frames of one sender to one receiver. One thread adds, another may acknowledge."""

    def __init__(self) -> None:
        self._frames: deque[tuple[int, list[m.Wire]]] = deque()
        self._frames_to_go = FRAMES_PER_ASKING
        self._bytes_to_go = BYTES_PER_ASKING

    def add(self, number: int, messages: list[m.Wire], size: int) -> None:
        self._frames.append((number, messages))
        self._frames_to_go -= 1
        self._bytes_to_go -= size

    def asks(self) -> bool:
        """Whether the next frame shall ask for acknowledgement."""
        if self._frames_to_go > 0 and self._bytes_to_go > 0:
            return False
        self._frames_to_go = FRAMES_PER_ASKING
        self._bytes_to_go = BYTES_PER_ASKING
        return True

    def acknowledged(self, number: int) -> None:
        """All frames up to this one are safe."""
        frames = self._frames
        while frames and frames[0][0] <= number:
            frames.popleft()

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self) -> list[tuple[int, list[m.Wire]]]:
        """Those that are left, oldest first."""
        return list(self._frames)
