"""Fully connected networks in NumPy: forward, backward, initialisation; checked against torch in the tests.

For small networks a framework's bookkeeping costs more than the arithmetic, and rollout workers that need no
torch start faster and stay small. Parameters and gradients are views into one flat float32 vector each:
clipping, the optimiser and messages see a single array.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Activation = Literal["tanh", "relu"]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MlpSpec:
    """Layer sizes from input to output, e.g. ``(4, 64, 64, 2)``; the activation follows all but the last."""

    sizes: tuple[int, ...]
    activation: Activation

    @property
    def num_parameters(self) -> int:
        return sum((before + 1) * after for before, after in zip(self.sizes, self.sizes[1:], strict=False))

    def layers(self, flat: Floats) -> Iterator[tuple[Floats, Floats]]:
        """Views into ``flat`` [num_parameters]: per layer the weights [in, out] and the bias [out]."""
        at = 0
        for before, after in zip(self.sizes, self.sizes[1:], strict=False):
            weights = flat[at : at + before * after].reshape(before, after)
            at += before * after
            yield weights, flat[at : at + after]
            at += after

    def initialise(self, rng: np.random.Generator, output_gain: float) -> Floats:
        """[num_parameters]: orthogonal weights, gain √2 in hidden layers and ``output_gain`` in the last; zero biases.

        Saxe et al. 2013 (arXiv:1312.6120), with the gains PPO implementations agree on (Huang et al. 2022,
        "The 37 implementation details of PPO").
        """
        flat = np.zeros(self.num_parameters, np.float32)
        layers = list(self.layers(flat))
        for index, (weights, _) in enumerate(layers):
            gain = output_gain if index == len(layers) - 1 else 2.0**0.5
            weights[...] = gain * _orthogonal(rng, *weights.shape)
        return flat

    def initialise_uniform(self, rng: np.random.Generator) -> Floats:
        """[num_parameters]: weights and biases uniform within ±1/√in of each layer, as torch's ``Linear`` begins."""
        flat = np.empty(self.num_parameters, np.float32)
        for weights, bias in self.layers(flat):
            bound = weights.shape[0] ** -0.5
            weights[...] = rng.uniform(-bound, bound, weights.shape)
            bias[...] = rng.uniform(-bound, bound, bias.shape)
        return flat


def _orthogonal(rng: np.random.Generator, rows: int, columns: int) -> NDArray[np.float64]:
    """[rows, columns], uniform among matrices with orthonormal rows or columns (whichever are fewer)."""
    normal = rng.standard_normal((max(rows, columns), min(rows, columns)))
    q, r = np.linalg.qr(normal)
    q *= np.sign(np.diag(r))  # without the signs, QR's convention would bias the draw
    return q if rows >= columns else q.T


class Mlp:
    """One network over given parameters, with buffers for its activations.

    Args:
        spec: the shape.
        parameters: [num_parameters] float32; read at every forward, never written.
        gradient: [num_parameters] float32 that :meth:`backward` overwrites; ``None`` for forward only.
    """

    def __init__(self, spec: MlpSpec, parameters: Floats, gradient: Floats | None = None) -> None:
        self.spec = spec
        self._layers = list(spec.layers(parameters))
        self._gradients = [] if gradient is None else list(spec.layers(gradient))
        self._tanh = spec.activation == "tanh"
        self._input: Floats = np.empty((0, spec.sizes[0]), np.float32)
        self._buffers: list[Floats] = []  # activations of every layer, [capacity, out]
        self._deltas: list[Floats] = []
        self._capacity = 0
        self._plan: list[tuple[Floats, Floats, Floats, bool]] = []
        self._rows = -1

    def forward(self, inputs: Floats) -> Floats:
        """[N, in] → [N, out], in a buffer that the next call overwrites."""
        rows = len(inputs)
        if rows != self._rows:
            self._resize(rows)
        self._input = hidden = inputs
        tanh = self._tanh
        for weights, bias, out, is_output in self._plan:
            np.dot(hidden, weights, out=out)
            np.add(out, bias, out=out)
            if not is_output:
                if tanh:
                    np.tanh(out, out=out)
                else:
                    np.maximum(out, 0.0, out=out)
            hidden = out
        return hidden

    @property
    def features(self) -> Floats:
        """[N, width] of the last hidden layer in the last :meth:`forward`; its input if there is none."""
        return self._plan[-2][2] if len(self._plan) > 1 else self._input

    def backward(self, output_gradient: Floats) -> None:
        """Overwrites ``gradient``, given d loss / d output [N, out] of the last :meth:`forward`.

        Once a forward: the activations' buffers are reused for their derivatives.
        """
        delta = output_gradient
        ones = self._ones[: self._rows]
        for index in range(len(self._plan) - 1, -1, -1):
            weights = self._plan[index][0]
            below = self._plan[index - 1][2] if index else self._input
            weights_gradient, bias_gradient = self._gradients[index]
            np.dot(below.T, delta, out=weights_gradient)
            np.dot(ones, delta, out=bias_gradient)  # the sum over rows; three times faster than add.reduce
            if not index:
                return
            next_delta = self._deltas[index - 1][: self._rows]
            np.dot(delta, weights.T, out=next_delta)
            if self._tanh:  # d tanh = 1 − tanh²
                np.multiply(below, below, out=below)
                np.subtract(1.0, below, out=below)
            else:
                np.greater(below, 0.0, out=below, casting="unsafe")
            np.multiply(next_delta, below, out=next_delta)
            delta = next_delta

    def _resize(self, rows: int) -> None:
        if rows > self._capacity:
            self._buffers = [np.empty((rows, width), np.float32) for width in self.spec.sizes[1:]]
            self._deltas = [np.empty((rows, width), np.float32) for width in self.spec.sizes[1:-1]]
            self._ones = np.ones(rows, np.float32)
            self._capacity = rows
        last = len(self._layers) - 1
        self._plan = [
            (weights, bias, buffer[:rows], index == last)
            for index, ((weights, bias), buffer) in enumerate(zip(self._layers, self._buffers, strict=True))
        ]
        self._rows = rows


def as_float32(values: Any) -> Floats:
    """A C-contiguous float32 array; no copy when it is one."""
    return np.ascontiguousarray(values, dtype=np.float32)
