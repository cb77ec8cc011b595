"""A limit of time, for what may wait for ever instead of failing."""

import contextlib
import signal


class TookTooLong(BaseException):
    """Something did not end; an OSError would be taken for one of the disk."""


@contextlib.contextmanager
def deadline(seconds):
    """Raise TookTooLong, in the main thread, after so many seconds."""

    def stop(*_):
        raise TookTooLong

    previous = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)
