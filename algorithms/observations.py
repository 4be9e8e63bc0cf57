"""Observations as rows of numbers: whatever an environment's space is, a batch of B is one array [B, O].

Rollouts, messages, normalisation and minibatches then see one array, as they do for the parameters. A policy gets the
row's parts back by the :class:`ObservationLayout`, which both sides make from the space alone. Rows with images in them
and nothing that needs fractions are uint8, all others float32: a quarter of the memory for pictures.

Dict and Tuple spaces are laid out in gymnasium's order (a plain dict's keys are sorted). Discrete values are one-hot.
Images, [H, W, C] or [C, H, W], lie as [C, H, W]. A Dict's ``action_mask``, the customary name for which actions are
allowed now, comes last and is not shown to the networks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import Space, spaces
from numpy.typing import NDArray

from .errors import UnsupportedSpaceError

ACTION_MASK = "action_mask"


@dataclass(frozen=True)
class Part:
    """One leaf of the space, columns ``start`` to ``start + size`` of a row."""

    name: str
    """Its path in Dict and Tuple spaces, ``arm.position``; empty if the space is not composed."""
    start: int
    size: int
    image: tuple[int, int, int] | None
    """(C, H, W) of an image of bytes; ``None`` of anything else."""


class ObservationLayout:
    """Where in a row [O] the parts of an observation are.

    Args:
        space: of one environment.

    Attributes:
        parts: what the networks see, in order.
        feature_size: how many columns that is.
        mask_size: how many columns an action mask has after them: 0 or 1 for each logit.
        size: O, all columns.
        dtype: float32, or uint8.

    Raises:
        UnsupportedSpaceError: a space without a fixed number of values.
    """

    def __init__(self, space: Space[Any]) -> None:
        self._space = space
        self._mask: Space[Any] | None = None
        if isinstance(space, spaces.Dict) and ACTION_MASK in space.spaces:
            self._mask = space.spaces[ACTION_MASK]
        self._leaves = list(_leaves(space, (), space))
        parts, start = [], 0
        for path, leaf in self._leaves:
            image = image_shape(leaf)
            size = int(np.prod(image)) if image else _size(leaf, space)
            parts.append(Part(".".join(map(str, path)), start, size, image))
            start += size
        self.parts: tuple[Part, ...] = tuple(parts)
        self.feature_size = start
        self.mask_size = 0 if self._mask is None else int(np.prod(self._mask.shape or ()))
        self.size = self.feature_size + self.mask_size
        self.has_images = any(part.image for part in parts)
        bytes_do = self.has_images and all(
            image_shape(leaf) or not isinstance(leaf, spaces.Box) for _, leaf in self._leaves
        )
        self.dtype: type[np.generic] = np.uint8 if bytes_do else np.float32
        self._as_it_is = (  # what a batch of arrays only needs to be reshaped for
            isinstance(space, spaces.Box) and (not parts[0].image or parts[0].image == space.shape)
        )
        if not self.feature_size:
            raise UnsupportedSpaceError(f"observation space {space} has nothing to observe in it")

    def encode(self, observations: Any, count: int) -> NDArray[Any]:
        """[count, O] of a batch as vector environments give it, or of a single observation if ``count`` is 1."""
        if self._as_it_is:
            return np.ascontiguousarray(observations, dtype=self.dtype).reshape(count, self.size)
        rows = np.zeros((count, self.size), self.dtype)
        for part, (path, leaf) in zip(self.parts, self._leaves, strict=True):
            values = observations
            for key in path:
                values = values[key]
            _write(rows[:, part.start:part.start + part.size], leaf, np.asarray(values), part.image)
        if self.mask_size:
            rows[:, self.feature_size:] = np.asarray(observations[ACTION_MASK]).reshape(count, self.mask_size)
        return rows

    def features(self, rows: NDArray[Any]) -> NDArray[Any]:
        """What the networks see of rows [N, O] → [N, feature_size]."""
        return rows[:, :self.feature_size] if self.mask_size else rows

    def masks(self, rows: NDArray[Any]) -> NDArray[Any] | None:
        """[N, mask_size], 0 where an action is not allowed; ``None`` if the space has no mask.

        Raises:
            ValueError: an observation allows nothing.
        """
        if not self.mask_size:
            return None
        masks = rows[:, self.feature_size:]
        if not masks.any(axis=1).all():
            raise ValueError(f"an observation's {ACTION_MASK} allows no action at all")
        return masks

    def normalised_columns(self) -> NDArray[np.bool_]:
        """[O], whether a column is brought to a common scale by statistics; pixels and masks are not.

        Raises:
            UnsupportedSpaceError: none is.
        """
        columns = np.zeros(self.size, np.bool_)
        for part in self.parts:
            columns[part.start:part.start + part.size] = part.image is None
        if self.dtype is np.uint8:
            raise UnsupportedSpaceError(
                "normalize_observations: images are brought to [0, 1] as they are; set it to false"
            )
        return columns


def image_shape(space: Space[Any]) -> tuple[int, int, int] | None:
    """(C, H, W) of a space of images: bytes, two-dimensional or with the shorter outer dimension for channels."""
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8 or not (space.high == 255).all():
        return None
    if len(space.shape) == 2:
        return (1, *space.shape)
    if len(space.shape) != 3:
        return None
    first, middle, last = space.shape
    return (first, middle, last) if first < last else (last, first, middle)


def _leaves(
    space: Space[Any], path: tuple[Any, ...], whole: Space[Any]
) -> Iterator[tuple[tuple[Any, ...], Space[Any]]]:
    if isinstance(space, spaces.Dict):
        for key, inner in space.spaces.items():
            if path or key != ACTION_MASK:
                yield from _leaves(inner, (*path, key), whole)
    elif isinstance(space, spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, index), whole)
    else:
        yield path, space


def _size(space: Space[Any], whole: Space[Any]) -> int:
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.MultiDiscrete):
        return int(space.nvec.sum())
    if isinstance(space, spaces.Box | spaces.MultiBinary):
        return int(np.prod(space.shape))
    raise UnsupportedSpaceError(
        f"observation space {whole} is not supported: {type(space).__name__} has no fixed number of values; "
        "Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of these are"
    )


def _write(
    out: NDArray[Any], space: Space[Any], values: NDArray[Any], image: tuple[int, int, int] | None
) -> None:
    """Into ``out`` [B, size]."""
    count = len(out)
    if image and space.shape not in (image, image[1:]):
        values = np.moveaxis(values.reshape(count, *space.shape), -1, 1)
    if isinstance(space, spaces.Discrete):
        out[np.arange(count), values.reshape(count) - space.start] = 1
    elif isinstance(space, spaces.MultiDiscrete):
        sizes = space.nvec.reshape(-1)
        offsets = np.cumsum(sizes) - sizes
        columns = values.reshape(count, -1) - space.start.reshape(-1) + offsets
        out[np.arange(count)[:, None], columns] = 1
    else:
        out[...] = values.reshape(out.shape)
