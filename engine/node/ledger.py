"""What a node has, what of it is free, and what is kept for long. No I/O.

Amounts are integers in ``options.UNITS``. GPUs are counted twice: their sum like any resource, and device by device
(``accelerators.py``), since a sum does not say whether a request fits.
"""

from __future__ import annotations

from collections.abc import Iterable

from .accelerators import Gpus, Share, would_fit
from .leases import Lease


class Ledger:
    """The books of the scheduler."""

    def __init__(self, capacity: dict[str, int]) -> None:
        self.capacity = dict(capacity)
        self.free = dict(capacity)
        """May be overdrawn by CPUs of tasks that resumed after ``get``."""
        self.held_by_actors = dict.fromkeys(capacity, 0)
        self.gpus = Gpus(capacity.get("GPU", 0))

    def feasible(self, demand: dict[str, int]) -> bool:
        """Whether it fits when nothing is given out."""
        return all(self.capacity.get(name, 0) >= amount for name, amount in demand.items())

    def fits(self, demand: dict[str, int]) -> bool:
        free = self.free
        for name, amount in demand.items():
            if free.get(name, 0) < amount:
                return False
        return "GPU" not in demand or self.gpus.fits(demand["GPU"])

    def will_fit(self, demand: dict[str, int], blocked: Iterable[Lease], kept: Iterable[Share]) -> bool:
        """Whether it is enough to wait for the tasks that run.

        Actors keep what they hold. So do tasks ``blocked`` in ``get``, but for their CPUs. ``kept``: GPUs of both.
        """
        left = {name: self.capacity[name] - self.held_by_actors[name] for name in demand}
        for lease in blocked:
            for name, amount in lease.shape.demand.items():
                if name in left and name != "CPU":
                    left[name] -= amount
        if "GPU" in demand and not would_fit(demand["GPU"], self.capacity["GPU"], kept):
            return False
        return all(left[name] >= amount for name, amount in demand.items())

    def grant(self, lease: Lease) -> None:
        """Takes what the lease's shape asks for, which :meth:`fits`."""
        for name, amount in lease.shape.demand.items():
            self.free[name] -= amount
        if lease.shape.gpus:
            lease.gpus = self.gpus.take(lease.shape.gpus)

    def granted_before(self, lease: Lease, devices: list[int]) -> None:
        """Like :meth:`grant`, of what another node has given out: with GPUs, those ``devices``."""
        for name, amount in lease.shape.demand.items():
            self.free[name] -= amount
        if lease.shape.gpus and devices:
            lease.gpus = self.gpus.take_these(lease.shape.gpus, devices)

    def end(self, lease: Lease) -> None:
        for name, amount in lease.shape.demand.items():
            if not (lease.blocked and name == "CPU"):  # those it has given back already
                self.free[name] += amount
        if lease.gpus:
            self.gpus.give_back(lease.gpus)

    def actor_holds(self, lease: Lease, sign: int) -> None:
        """An actor lives under the lease (+1), or does so no more (−1)."""
        for name, amount in lease.shape.demand.items():
            self.held_by_actors[name] += sign * amount

    def lacking(self, demand: dict[str, int], lacked: frozenset[str]) -> set[str]:
        """Resources of which there is too little; GPUs also when what is free is of several devices.

        Once GPUs ``lacked`` they are named again: what is free by now might be cut up by others.
        """
        found = {name for name, amount in demand.items() if self.free[name] < amount}
        if "GPU" in demand and ("GPU" in lacked or not self.gpus.fits(demand["GPU"])):
            found.add("GPU")
        return found
