"""What holds for all tests."""

import signal


def pytest_configure():
    """Let interrupts interrupt: what a script runs in the background ignores them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
