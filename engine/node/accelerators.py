"""Which GPUs a lease gets. A state machine without I/O, beside the scheduler that counts the amounts.

A count of free GPUs does not say whether a request fits: 0.4 and 0.4 left on two devices are no room for 0.8, and one
whole GPU must be a device that nobody shares. So each device is counted by itself. A fraction goes to the fullest
device that has room for it, which keeps others whole.

*Which process.* CUDA reads ``CUDA_VISIBLE_DEVICES`` once, at its first use in a process, and keeps memory of the
device until the process ends. A lease with GPUs therefore goes to a worker that has run nothing yet, and the worker
leaves when the lease ends: no process ever sees two sets of devices, and what a task left on a device goes with it.
Rejected: to keep such a worker for the next request of the same devices. It would hold device memory that the
scheduler takes for free.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..options import UNITS

Share = dict[int, int]
"""Amounts by device: all of several devices, or a part of one."""


class Gpus:
    """The devices of a node, by their position. Amounts are in ``options.UNITS``."""

    def __init__(self, capacity: int) -> None:
        self.free = [UNITS] * (capacity // UNITS)
        if capacity % UNITS:
            self.free.append(capacity % UNITS)

    def fits(self, amount: int) -> bool:
        if amount >= UNITS:
            return self.free.count(UNITS) * UNITS >= amount
        return any(left >= amount for left in self.free)

    def take(self, amount: int) -> Share:
        """The share for a request that :meth:`fits`."""
        if amount >= UNITS:
            whole = [device for device, left in enumerate(self.free) if left == UNITS]
            share = dict.fromkeys(whole[: amount // UNITS], UNITS)
        else:
            _, device = min((left, device) for device, left in enumerate(self.free) if left >= amount)
            share = {device: amount}
        for device, taken in share.items():
            self.free[device] -= taken
        return share

    def take_these(self, amount: int, devices: list[int]) -> Share:
        """The share of a request that was given these devices before."""
        share = dict.fromkeys(devices, UNITS) if amount >= UNITS else {devices[0]: amount}
        for device, taken in share.items():
            self.free[device] -= taken
        return share

    def give_back(self, share: Share) -> None:
        for device, taken in share.items():
            self.free[device] += taken


def would_fit(amount: int, capacity: int, kept: Iterable[Share]) -> bool:
    """Whether ``amount`` fits once everything is given back but what is ``kept``."""
    gpus = Gpus(capacity)
    for share in kept:
        for device, taken in share.items():
            gpus.free[device] -= taken
    return gpus.fits(amount)
