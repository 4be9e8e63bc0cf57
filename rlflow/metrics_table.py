"""The metrics of a run as columns: a pandas data frame where pandas is installed, a plain table elsewhere.

Both are read alike in the ways that matter: ``table["episode_return"]`` is a column, ``len(table)`` the number of
iterations, and Jupyter shows them as a table. A number that does not exist in an iteration is NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHOWN_ROWS = 10
"""Of a table in a notebook: the first and the last half of them."""


class MetricsTable(Mapping[str, NDArray[np.float64]]):
    """Columns by name, each [iterations], NaN where a metric was missing."""

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self._length = len(rows)
        self._columns = {name: _column(rows, name) for name in _names(rows)}

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> NDArray[np.float64]:
        return self._columns[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        """Iterations, as with a data frame."""
        return self._length

    def __repr__(self) -> str:
        return f"MetricsTable({self._length} iterations of {', '.join(self._columns)})"

    def _repr_html_(self) -> str:
        half = SHOWN_ROWS // 2
        whole = self._length <= SHOWN_ROWS
        first = range(self._length) if whole else range(half)
        last = range(0) if whole else range(self._length - half, self._length)
        head = "".join(f"<th>{escape(name)}</th>" for name in self._columns)
        gap = "" if whole else f"<tr>{'<td>…</td>' * len(self._columns)}</tr>"
        body = "".join(map(self._html_row, first)) + gap + "".join(map(self._html_row, last))
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _html_row(self, index: int) -> str:
        return "<tr>" + "".join(f"<td>{column[index]:g}</td>" for column in self._columns.values()) + "</tr>"


def metrics_table(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A ``pandas.DataFrame`` or a :class:`MetricsTable`."""
    if find_spec("pandas") is None:
        return MetricsTable(rows)
    import pandas

    return pandas.DataFrame({name: _column(rows, name) for name in _names(rows)})


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """In the order in which they first appeared."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> NDArray[np.float64]:
    values = (row.get(name) for row in rows)
    return np.array([np.nan if value is None else value for value in values], np.float64)
