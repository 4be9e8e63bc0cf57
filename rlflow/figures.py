"""A matplotlib figure that a notebook shows by itself. Apart, since importing it imports matplotlib."""

from __future__ import annotations

import io

from matplotlib.figure import Figure


class ShownFigure(Figure):
    """As a cell's value it is its picture, whatever backend pyplot has, if any."""

    def _repr_png_(self) -> bytes:
        picture = io.BytesIO()
        self.savefig(picture, format="png", dpi=100)
        return picture.getvalue()
