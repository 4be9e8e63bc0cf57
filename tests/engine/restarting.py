"""Killing the node daemon, and keeping it from being started again for a while."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from waiting import all_resources_free, daemon_and_zygote, is_gone, wait_for

from rlflow.engine import api


def supervisor() -> int:
    return api.current_backend().supervisor_pid


def there_is_a_daemon() -> bool:
    try:
        daemon_and_zygote(supervisor())
    except (ValueError, OSError, psutil.Error):  # it is being forked, or ends
        return False
    return True


def kill_daemon() -> None:
    """Fails with the reason when the session has ended."""
    wait_for(lambda: api.current_backend().failure or there_is_a_daemon(), "a daemon is there")
    assert not api.current_backend().failure, api.current_backend().failure
    daemon, _ = daemon_and_zygote(supervisor())
    os.kill(daemon, signal.SIGKILL)
    wait_for(lambda: is_gone(daemon), "the daemon ends")


@contextmanager
def without_daemon() -> Iterator[None]:
    """The daemon is dead while the block runs: the zygote, which forks the next one, stands still."""
    wait_for(there_is_a_daemon, "a daemon is there")
    daemon, zygote = daemon_and_zygote(supervisor())
    os.kill(zygote, signal.SIGSTOP)
    try:
        os.kill(daemon, signal.SIGKILL)
        wait_for(lambda: is_gone(daemon), "the daemon ends")
        yield
    finally:
        os.kill(zygote, signal.SIGCONT)


def nothing_is_left() -> bool:
    """Whether neither the driver nor the node knows any object, task or actor, and all resources are free."""
    return all_resources_free() and not any(api.current_backend().questions.census().values())
