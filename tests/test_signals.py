"""Watched signals are noticed and end nothing; unwatched, all is as it was before."""

import gc
import signal
import threading

import pytest
from boxes import python
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    precondition,
    rule,
)

from elementsckpt import signals

USR1, USR2, TERM = signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM


@pytest.fixture(autouse=True)
def untouched():
    """Every test leaves the signals as they were and nobody watching."""
    numbers = USR1, USR2, TERM, signal.SIGINT, signal.SIGWINCH
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before
    if signals._watches:  # In a large process it takes as long as all else here.
        gc.collect()
    assert signals._watches == []


class Calls(list):
    """A handler that notes the signals that it gets."""

    def __call__(self, number, frame):
        self.append(number)


@pytest.fixture
def previous():
    """A handler of SIGUSR1 and SIGUSR2 that is there before anybody watches."""
    calls = Calls()
    before = [signal.signal(number, calls) for number in (USR1, USR2)]
    yield calls
    signal.signal(USR1, before[0])
    signal.signal(USR2, before[1])


SCRIPT = """
import gc, os, signal, threading
from signal import SIGTERM, SIGUSR1, raise_signal
from elementsckpt import signals
"""


def run(script, timeout=None):
    """Return how a process ended and what it printed."""
    child = python(SCRIPT + script, timeout=timeout)
    assert child.stderr == ""
    return child.returncode, child.stdout.split()


# One watch


def test_the_first_signal_that_came_is_told(previous):
    watch = signals.watch((USR1, USR2))
    assert watch.received is None
    signal.raise_signal(USR2)
    assert watch.received is USR2
    signal.raise_signal(USR1)
    assert watch.received is USR2
    watch.stop()
    assert watch.received is USR2
    assert previous == [USR2, USR1]


def test_other_signals_are_left_alone(previous):
    watch = signals.watch((USR1,))
    signal.raise_signal(USR2)
    assert signal.getsignal(USR2) is previous
    assert watch.received is None
    watch.stop()


def test_sigterm_and_sigusr1_are_watched_and_do_not_end_the_process():
    for name in "SIGTERM", "SIGUSR1":
        script = f"""
watch = signals.watch()
raise_signal({name})
raise_signal({name})
print(watch.received.name)
"""
        assert run(script) == (0, [name])


@pytest.mark.parametrize(
    "sender", ["raise_signal(SIGTERM)", "os.kill(os.getpid(), 15)"]
)
def test_a_signal_ends_the_process_again_when_the_watch_is_stopped(sender):
    script = f"""
watch = signals.watch()
{sender}
watch.stop()
print(signal.getsignal(SIGTERM) == signal.SIG_DFL, flush=True)
{sender}
print("alive")
"""
    assert run(script) == (-TERM, ["True"])


def test_a_previous_handler_is_called_when_the_signal_has_been_noticed():
    seen = []
    before = signal.signal(USR1, lambda *args: seen.append((watch.received, *args)))
    watch = signals.watch()
    signal.raise_signal(USR1)
    ((received, number, frame),) = seen
    assert (received, number) == (USR1, USR1)
    assert frame.f_code.co_filename == __file__
    watch.stop()
    signal.signal(USR1, before)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), ValueError()])
def test_what_a_previous_handler_raises_comes_through(error):
    def fails(number, frame):
        raise error

    before = signal.signal(USR1, fails)
    watch = signals.watch()
    with pytest.raises(type(error)) as caught:
        signal.raise_signal(USR1)
    assert caught.value is error
    assert watch.received is USR1
    watch.stop()
    assert signal.signal(USR1, before) is fails


def test_an_interrupt_can_be_watched_and_still_interrupts():
    watch = signals.watch((signal.SIGINT,))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert watch.received is signal.SIGINT
    watch.stop()


def test_a_signal_that_was_ignored_is_noticed_and_later_ignored_again():
    before = signal.signal(USR1, signal.SIG_IGN)
    watch = signals.watch()
    signal.raise_signal(USR1)
    assert watch.received is USR1
    watch.stop()
    assert signal.getsignal(USR1) is signal.SIG_IGN
    signal.raise_signal(USR1)
    signal.signal(USR1, before)


def test_stopping_again_is_harmless(previous):
    one, two = signals.watch(), signals.watch()
    one.stop()
    one.stop()
    signal.raise_signal(USR1)
    assert two.received is USR1
    two.stop()
    two.stop()
    assert signal.getsignal(USR1) is previous


def test_signals_that_came_before_are_not_told(previous):
    first = signals.watch()
    signal.raise_signal(USR1)
    second = signals.watch()
    assert (first.received, second.received) == (USR1, None)
    first.stop()
    second.stop()


def test_a_signal_may_come_while_another_is_handled():
    def twice(number, frame):
        order.append(number)
        if number == USR1:
            signal.raise_signal(USR2)

    order = []
    before = signal.signal(USR1, twice), signal.signal(USR2, twice)
    watch = signals.watch((USR1, USR2))
    signal.raise_signal(USR1)
    assert (watch.received, order) == (USR1, [USR1, USR2])
    watch.stop()
    signal.signal(USR1, before[0])
    signal.signal(USR2, before[1])


# What cannot be watched


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_cannot_be_watched_is_named_and_nothing_stays_watched(previous, number):
    with pytest.raises(ValueError, match=f"{number.name} cannot be watched"):
        signals.watch((USR1, number, USR2))
    assert signal.getsignal(USR1) is previous
    assert signal.getsignal(USR2) is previous


def test_a_number_that_is_no_signal_is_refused():
    with pytest.raises(ValueError, match="1000"):
        signals.watch((1000,))


def test_another_thread_cannot_begin_a_watch_and_is_told_what_to_do(previous):
    errors = []

    def work():
        try:
            signals.watch()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (message,) = errors
    assert "main thread" in message
    assert "watch_signals()" in message
    assert signal.getsignal(USR1) is previous


def test_a_handler_that_python_cannot_call_is_said_to_be_replaced(caplog, monkeypatch):
    # As where the program that embeds Python has installed one.
    before, getsignal = signal.getsignal(USR1), signal.getsignal
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda number: None)
        watch = signals.watch((USR1,))
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("elementsckpt", "WARNING")
    assert "SIGUSR1" in record.getMessage()
    signal.raise_signal(USR1)
    assert watch.received is USR1
    watch.stop()
    assert getsignal(USR1) is signal.SIG_DFL
    signal.signal(USR1, before)


def test_systems_without_sigusr1_watch_the_other():
    script = "assert signals.DEFAULT == (SIGTERM,)"
    child = python(
        f"import signal\ndel signal.SIGUSR1\nfrom signal import SIGTERM\n"
        f"from elementsckpt import signals\n{script}"
    )
    assert (child.returncode, child.stderr) == (0, "")


# Several watches


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_watches_end_in_any_order(previous, order):
    watches = [signals.watch(), signals.watch((USR1, USR2))]
    first, second = (watches[number] for number in order)
    first.stop()
    signal.raise_signal(USR1)
    assert (first.received, second.received) == (None, USR1)
    second.stop()
    signal.raise_signal(USR1)
    assert previous == [USR1, USR1]
    assert signal.getsignal(USR1) is signal.getsignal(USR2) is previous


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_only_when_the_last_watch_is_stopped_a_signal_ends_the_process(order):
    script = f"""
a, b = signals.watch(), signals.watch()
{order[0]}.stop()
raise_signal(SIGTERM)
print({order[0]}.received, {order[1]}.received.name, flush=True)
{order[1]}.stop()
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["None", "SIGTERM"])


def test_a_watch_that_nobody_holds_watches_no_more(previous):
    kept, dropped = signals.watch(), signals.watch()
    del dropped
    gc.collect()
    assert len(signals._watches) == 1
    kept.stop()
    assert signal.getsignal(USR1) is previous


def test_when_nobody_holds_a_watch_any_more_a_signal_ends_the_process():
    script = """
watch = signals.watch()
raise_signal(SIGTERM)
del watch
gc.collect()
print("dropped", flush=True)
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["dropped"])


def test_when_nobody_holds_a_watch_any_more_a_signal_is_ignored_as_before():
    script = """
signal.signal(SIGTERM, signal.SIG_IGN)
signals.watch()
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (0, ["alive"])


# Handlers of others

FOREIGN = """
def foreign(number, frame):
    print("foreign", flush=True)
    if callable(replaced):
        replaced(number, frame)

watch = signals.watch()
replaced = signal.signal(SIGTERM, foreign)
raise_signal(SIGTERM)
print(watch.received.name, flush=True)
watch.stop()
assert signal.getsignal(SIGTERM) is foreign
"""


def test_a_handler_that_came_later_stays_and_its_chain_ends_in_the_default():
    script = f"{FOREIGN}\nraise_signal(SIGTERM)\nprint('alive')"
    assert run(script) == (-TERM, ["foreign", "SIGTERM", "foreign"])


def test_a_handler_that_came_later_may_put_back_what_it_found():
    script = f"""{FOREIGN}
signal.signal(SIGTERM, replaced)
print("back", flush=True)
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["foreign", "SIGTERM", "back"])


def test_a_chain_in_which_nobody_watches_any_more_can_be_watched_again():
    script = f"""{FOREIGN}
again = signals.watch()
raise_signal(SIGTERM)
print(again.received.name, flush=True)
again.stop()
assert signal.getsignal(SIGTERM) is foreign
signal.signal(SIGTERM, replaced)
third = signals.watch()
raise_signal(SIGTERM)
print(third.received.name, flush=True)
third.stop()
assert signal.getsignal(SIGTERM) is signal.SIG_DFL
"""
    words = ["foreign", "SIGTERM", "foreign", "SIGTERM", "SIGTERM"]
    assert run(script) == (0, words)


def test_a_watch_notices_where_a_later_handler_calls_nobody(previous):
    first = signals.watch()
    deaf = Calls()
    signal.signal(USR1, deaf)
    second = signals.watch()
    signal.raise_signal(USR1)
    assert (first.received, second.received) == (USR1, USR1)
    assert (deaf, previous) == ([USR1], [])
    first.stop()
    second.stop()
    assert signal.getsignal(USR1) is deaf


def test_a_default_that_ends_nothing_leaves_the_handlers_of_others_in_place():
    calls, number = Calls(), signal.SIGWINCH

    def foreign(number, frame):
        calls(number, frame)
        replaced(number, frame)

    watch = signals.watch((number,))
    replaced = signal.signal(number, foreign)
    watch.stop()
    signal.raise_signal(number)
    signal.raise_signal(number)
    assert calls == [number, number]
    assert signal.signal(number, signal.SIG_DFL) is foreign


class Chain(RuleBasedStateMachine):
    """Watches and handlers of others come and go; each hears of each signal."""

    watches = Bundle("watches")

    def __init__(self):
        super().__init__()
        self.root = Calls()
        self.before = signal.signal(USR1, self.root)
        self.active = []
        self.others = []  # Their handlers, what they replaced, and their calls.
        self.sent = 0

    @rule(target=watches)
    def watch(self):
        self.active.append(signals.watch((USR1,)))
        return id(self.active[-1])

    @rule(watch=consumes(watches), drop=st.booleans())
    def end(self, watch, drop):
        (ended,) = (x for x in self.active if id(x) == watch)
        self.active.remove(ended)
        if not drop:
            ended.stop()
        del ended

    @rule()
    def come(self):
        def other(number, frame):
            calls.append(number)
            replaced(number, frame)

        calls = []
        replaced = signal.signal(USR1, other)
        self.others.append((other, replaced, calls, self.sent))

    @precondition(lambda self: self.others)
    @rule()
    def go(self):
        other, replaced, *_ = self.others[-1]
        if signal.getsignal(USR1) is other:
            signal.signal(USR1, replaced)
            self.others.pop()

    @rule()
    def send(self):
        for watch in self.active:
            watch.received = None
        signal.raise_signal(USR1)
        self.sent += 1
        assert len(self.root) == self.sent
        for watch in self.active:
            assert watch.received is USR1
        for *_, calls, begun in self.others:
            assert len(calls) == self.sent - begun

    def teardown(self):
        for watch in self.active:
            watch.stop()
        signal.signal(USR1, self.before)


class TestChain(Chain.TestCase):
    settings = settings(max_examples=60, deadline=None)


# Threads, processes, blocked signals


def test_a_signal_is_noticed_whichever_thread_it_goes_to(previous):
    watch, done = signals.watch(), threading.Event()

    def work():
        signal.pthread_kill(threading.get_ident(), USR1)
        done.set()

    thread = threading.Thread(target=work)
    thread.start()
    done.wait()
    thread.join()
    assert watch.received is USR1
    watch.stop()


def test_a_watch_that_another_thread_stops_passes_everything_on(previous):
    watch = signals.watch()
    thread = threading.Thread(target=watch.stop)
    thread.start()
    thread.join()
    signal.raise_signal(USR1)
    assert watch.received is None
    assert previous == [USR1]
    watch.stop()
    assert signal.getsignal(USR1) is previous


def test_when_another_thread_has_stopped_the_watch_a_signal_ends_the_process():
    script = """
watch = signals.watch()
thread = threading.Thread(target=watch.stop)
thread.start()
thread.join()
print("stopped", flush=True)
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["stopped"])


FORK = """
def forked(work):
    pid = os.fork()
    if not pid:
        try:
            os._exit(work())
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_a_forked_child_ends_by_a_signal_that_its_parent_watches():
    script = f"""{FORK}
watch = signals.watch()
print(forked(lambda: raise_signal(SIGTERM) or 0))
print(watch.received)
raise_signal(SIGTERM)
print(watch.received.name)
"""
    assert run(script) == (0, [str(-TERM), "None", "SIGTERM"])


def test_a_forked_child_may_begin_a_watch_of_its_own():
    script = f"""{FORK}
watch = signals.watch()

def work():
    own = signals.watch()
    raise_signal(SIGTERM)
    if own.received is not SIGTERM or watch.received is not None:
        return 1
    own.stop()
    raise_signal(SIGTERM)

print(forked(work))
print(watch.received)
"""
    assert run(script) == (0, [str(-TERM), "None"])


def test_a_forked_child_may_stop_the_watch_of_its_parent():
    script = f"""{FORK}
watch = signals.watch()

def work():
    watch.stop()
    return int(signal.getsignal(SIGTERM) != signal.SIG_DFL)

print(forked(work))
raise_signal(SIGTERM)
print(watch.received.name)
"""
    assert run(script) == (0, ["0", "SIGTERM"])


def test_a_watch_does_not_keep_multiprocessing_from_ending_its_processes():
    script = """
import multiprocessing
watch = signals.watch()
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe()

def work():
    theirs.send("here")  # A signal before it runs any Python is lost without us, too.
    theirs.recv()  # It holds both ends, and waits for ever.

context.Process(target=work, daemon=True).start()
print(ours.recv())
"""
    assert run(script, timeout=60) == (0, ["here"])


def test_a_blocked_signal_is_noticed_when_it_is_let_through(previous):
    signal.pthread_sigmask(signal.SIG_BLOCK, [USR1])
    signal.raise_signal(USR1)
    watch = signals.watch()
    assert watch.received is None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
    assert watch.received is USR1
    watch.stop()


def test_a_blocked_signal_that_is_let_through_too_late_ends_the_process():
    script = """
watch = signals.watch()
signal.pthread_sigmask(signal.SIG_BLOCK, [SIGTERM])
raise_signal(SIGTERM)
watch.stop()
print(watch.received, flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGTERM])
print("alive")
"""
    assert run(script) == (-TERM, ["None"])


def test_a_signal_from_another_process_is_noticed(previous):
    watch = signals.watch()
    python("import os, signal; os.kill(os.getppid(), signal.SIGUSR1)")
    assert watch.received is USR1
    watch.stop()
