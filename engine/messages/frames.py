"""Frames: how messages are put together, and taken apart."""

from __future__ import annotations

import msgspec

from .tasks import Outcome, Spec, Value
from .to_node import ToNode
from .to_process import ToProcess
from .wire import Wire


class NodeFrame(Wire):
    sender: str
    number: int
    messages: list[ToNode]


class ProcessFrame(Wire):
    sender: str
    number: int
    messages: list[ToProcess]


class OutFrame(Wire):
    """Either frame, from the sender's side."""

    sender: str
    number: int
    """Of all frames of this sender to this receiver, from 0."""

    messages: list[Wire]


_encoder = msgspec.msgpack.Encoder()
encode = _encoder.encode
decode_node_frame = msgspec.msgpack.Decoder(NodeFrame).decode
decode_process_frame = msgspec.msgpack.Decoder(ProcessFrame).decode
decode_spec = msgspec.msgpack.Decoder(Spec).decode
decode_outcome = msgspec.msgpack.Decoder(Outcome).decode
decode_value = msgspec.msgpack.Decoder(Value).decode

NODE = "node"
"""Name of the node, and of its inbox; a node that took another one's place has an inbox ``node.<incarnation>``."""

UNNUMBERED = -1
"""Number of a frame outside of the order."""
