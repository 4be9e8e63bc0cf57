"""How much there is: resources, and what costs memory. Numbers by name, for whoever asks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .. import messages as m
from ..options import UNITS

if TYPE_CHECKING:
    from .daemon import Daemon


class InfoDesk:
    """See the module's essay."""

    def __init__(self, node: Daemon) -> None:
        self._node = node

    def on_ask(self, sender: str, ask: m.Ask) -> None:
        if ask.what == "census":
            answer = self._census()
        elif ask.what == "tables":
            from ..testing.tables import table_sizes

            answer = table_sizes(self._node)
        else:
            scheduler = self._node.scheduler
            amounts = scheduler.free if ask.what == "available" else scheduler.capacity
            answer = {name: max(0, n) / UNITS for name, n in amounts.items()}
        self._node.post(sender, m.Answer(ask.token, answer))

    def _census(self) -> dict[str, float]:
        node = self._node
        return {
            "tasks": len(node.tasks.tasks),
            "living actors": node.actors.table.living(),
            "known actors": len(node.actors.table),
            **node.objects.directory.census(),
            "ancestors": len(node.lineage.ancestry),
        }
