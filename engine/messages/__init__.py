"""What travels between driver, node and workers: msgpack arrays, typed at both ends by msgspec.

One frame is ``[sender, number, [message, ...]]``. Python's cost is per call and per frame, so whatever can wait
for company is batched. Specs and outcomes are encoded once, by who makes them, and then travel as raw bytes: the
node forwards and stores them without encoding them again.
"""

from .frames import *
from .tasks import *
from .to_node import *
from .to_process import *
from .wire import *
