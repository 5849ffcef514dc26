"""SIGTERM and SIGINT as a request to stop at the next step, not in the middle of one."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Preempted(SystemExit):
    """The run was asked to stop and has saved its state; the exit code is 128 + the signal.

    143 for SIGTERM, 130 for SIGINT: what a shell or a scheduler expects of an unfinished job.
    With 0 they would take it for complete and never start it again.
    """


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], int]]:
    """Gives a function that returns the signal received so far, or 0.

    The second signal acts as if nobody watched, for those who cannot wait. Outside the main
    thread Python cannot watch signals, and the function returns 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    received: list[int] = []
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            # None: a handler that Python did not install and cannot put back
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def note(number: int, frame: object) -> None:
        received.append(number)
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield lambda: received[0] if received else 0
    finally:
        restore()
