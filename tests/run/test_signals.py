"""Watched signals are noticed and end nothing; unwatched, all is as it was before."""

import faulthandler
import gc
import inspect
import itertools
import os
import platform
import signal
import sys
import threading
import time

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    precondition,
    rule,
)

from elementsckpt.run import signals

from support.boxes import python

GLIBC = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="looks into what the C library has"
)
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
    assert signals._watches == {}


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


def watching(*args, cls=None):
    """Return a watch that has begun."""
    watch = (cls or signals.Watch)(*args)
    try:
        watch.begin()
    except BaseException:
        watch.stop()
        raise
    return watch


SCRIPT = f"""
import gc, os, signal, sys, threading
from signal import SIGTERM, SIGUSR1, raise_signal
from elementsckpt.run import signals

{inspect.getsource(watching)}
"""


def run(script, timeout=None):
    """Return how a process ended and what it printed."""
    child = python(SCRIPT + script, timeout=timeout)
    assert child.stderr == ""
    return child.returncode, child.stdout.split()


# One watch


def test_the_first_signal_that_came_is_told(previous):
    watch = watching((USR1, USR2))
    assert watch.received is None
    signal.raise_signal(USR2)
    assert watch.received is USR2
    signal.raise_signal(USR1)
    assert watch.received is USR2
    watch.stop()
    assert watch.received is USR2
    assert previous == [USR2, USR1]


def test_other_signals_are_left_alone(previous):
    watch = watching((USR1,))
    signal.raise_signal(USR2)
    assert signal.getsignal(USR2) is previous
    assert watch.received is None
    watch.stop()


def test_sigterm_and_sigusr1_are_watched_and_do_not_end_the_process():
    for name in "SIGTERM", "SIGUSR1":
        script = f"""
watch = watching()
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
watch = watching()
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
    watch = watching()
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
    watch = watching()
    with pytest.raises(type(error)) as caught:
        signal.raise_signal(USR1)
    assert caught.value is error
    assert watch.received is USR1
    watch.stop()
    assert signal.signal(USR1, before) is fails


def test_an_interrupt_can_be_watched_and_still_interrupts():
    watch = watching((signal.SIGINT,))
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert watch.received is signal.SIGINT
    watch.stop()


def test_a_signal_that_was_ignored_is_noticed_and_later_ignored_again():
    before = signal.signal(USR1, signal.SIG_IGN)
    watch = watching()
    signal.raise_signal(USR1)
    assert watch.received is USR1
    watch.stop()
    assert signal.getsignal(USR1) is signal.SIG_IGN
    signal.raise_signal(USR1)
    signal.signal(USR1, before)


def test_stopping_again_is_harmless(previous):
    one, two = watching(), watching()
    one.stop()
    one.stop()
    signal.raise_signal(USR1)
    assert two.received is USR1
    two.stop()
    two.stop()
    assert signal.getsignal(USR1) is previous


def test_signals_that_came_before_are_not_told(previous):
    first = watching()
    signal.raise_signal(USR1)
    second = watching()
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
    watch = watching((USR1, USR2))
    signal.raise_signal(USR1)
    assert (watch.received, order) == (USR1, [USR1, USR2])
    watch.stop()
    signal.signal(USR1, before[0])
    signal.signal(USR2, before[1])


# What cannot be watched


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_what_cannot_be_watched_is_named_and_nothing_stays_watched(previous, number):
    with pytest.raises(ValueError, match=f"{number.name} cannot be watched"):
        watching((USR1, number, USR2))
    assert signal.getsignal(USR1) is previous
    assert signal.getsignal(USR2) is previous


def test_a_number_that_is_no_signal_is_refused():
    with pytest.raises(ValueError, match="1000"):
        watching((1000,))


def test_another_thread_cannot_begin_a_watch_and_is_told_what_to_do(previous):
    errors = []

    def work():
        try:
            watching()
        except ValueError as error:
            errors.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    (message,) = errors
    assert "main thread" in message
    assert "watch_signals()" in message
    assert signal.getsignal(USR1) is previous


def test_systems_without_sigusr1_watch_the_other():
    script = "assert signals.DEFAULT == (SIGTERM,)"
    child = python(
        f"import signal\ndel signal.SIGUSR1\nfrom signal import SIGTERM\n"
        f"from elementsckpt.run import signals\n{script}"
    )
    assert (child.returncode, child.stderr) == (0, "")


# Several watches


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_watches_end_in_any_order(previous, order):
    watches = [watching(), watching((USR1, USR2))]
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
a, b = watching(), watching()
{order[0]}.stop()
raise_signal(SIGTERM)
print({order[0]}.received, {order[1]}.received.name, flush=True)
{order[1]}.stop()
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["None", "SIGTERM"])


def test_a_watch_that_nobody_holds_watches_no_more(previous):
    kept, dropped = watching(), watching()
    del dropped
    gc.collect()
    assert len(signals._watches) == 1
    kept.stop()
    assert signal.getsignal(USR1) is previous


def test_when_nobody_holds_a_watch_any_more_a_signal_ends_the_process():
    script = """
watch = watching()
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
watching()
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

watch = watching()
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
again = watching()
raise_signal(SIGTERM)
print(again.received.name, flush=True)
again.stop()
assert signal.getsignal(SIGTERM) is foreign
signal.signal(SIGTERM, replaced)
third = watching()
raise_signal(SIGTERM)
print(third.received.name, flush=True)
third.stop()
assert signal.getsignal(SIGTERM) is signal.SIG_DFL
"""
    words = ["foreign", "SIGTERM", "foreign", "SIGTERM", "SIGTERM"]
    assert run(script) == (0, words)


def test_a_watch_notices_where_a_later_handler_calls_nobody(previous):
    first = watching()
    deaf = Calls()
    signal.signal(USR1, deaf)
    second = watching()
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

    watch = watching((number,))
    replaced = signal.signal(number, foreign)
    watch.stop()
    signal.raise_signal(number)
    signal.raise_signal(number)
    assert calls == [number, number]
    assert signal.signal(number, signal.SIG_DFL) is foreign


class Noting(signals.Watch):
    """A watch that notes the last signal, too."""

    def notice(self, number):
        super().notice(number)
        self.noticed = number


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
        self.active.append(watching((USR1,), cls=Noting))
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
            watch.noticed = None
        signal.raise_signal(USR1)
        self.sent += 1
        assert len(self.root) == self.sent
        for watch in self.active:
            assert (watch.noticed, watch.received) == (USR1, USR1)
        for *_, calls, begun in self.others:
            assert len(calls) == self.sent - begun

    def teardown(self):
        for watch in self.active:
            watch.stop()
        signal.signal(USR1, self.before)


class TestChain(Chain.TestCase):
    settings = settings(max_examples=60, deadline=None)


# Code that Python does not know

UNKNOWN = (
    "SIGUSR1 has a handler that Python does not know, such as one by "
    "faulthandler.register(): it is not called while the signal is watched, and put "
    "back by close(). To have both, call watch_signals() first, and then for example "
    "faulthandler.register(signal.SIGUSR1, chain=True).\n"
)
DUMP = """
import faulthandler
dump = open(os.devnull if len(sys.argv) < 2 else sys.argv[1], "w+")

def dumped():
    dump.seek(0)
    return "most recent call first" in dump.read()
"""


def test_what_faulthandler_registered_is_said_to_be_replaced_and_put_back(tmp_path):
    script = f"""{DUMP}
faulthandler.register(SIGUSR1, file=dump)
watch = watching()
raise_signal(SIGUSR1)
print(watch.received.name, dumped())
watch.stop()
raise_signal(SIGUSR1)
print(dumped())
"""
    child = python(SCRIPT + script, tmp_path / "dump")
    assert (child.returncode, child.stderr) == (0, UNKNOWN)
    assert child.stdout.split() == ["SIGUSR1", "False", "True"]


def test_what_faulthandler_registered_is_called_when_nobody_holds_the_watch(tmp_path):
    script = f"""{DUMP}
faulthandler.register(SIGUSR1, file=dump)
watching()
for _ in range(2):
    raise_signal(SIGUSR1)
    print(dumped())
    dump.truncate(0)
"""
    child = python(SCRIPT + script, tmp_path / "dump")
    assert (child.returncode, child.stderr) == (0, UNKNOWN)
    assert child.stdout.split() == ["True", "True"]


def test_what_faulthandler_registers_later_may_go_on_to_the_watch(tmp_path):
    script = f"""{DUMP}
watch = watching()
faulthandler.register(SIGUSR1, file=dump, chain=True)
raise_signal(SIGUSR1)
print(watch.received.name, dumped())
dump.truncate(0)
watch.stop()
print("stopped", flush=True)
raise_signal(SIGUSR1)
print("alive")
"""
    child = python(SCRIPT + script, tmp_path / "dump")
    assert child.returncode == -USR1
    assert child.stdout.split() == ["SIGUSR1", "True", "stopped"]
    assert "most recent call first" in (tmp_path / "dump").read_text()


def test_code_that_comes_later_is_told_of_once(caplog, monkeypatch):
    watch = watching((USR1,))
    before = signals.code_of(signals.action_of(USR1))
    faulthandler.register(USR1, file=sys.__stderr__)
    for now in itertools.islice(itertools.count(time.monotonic(), 60), 3):
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        assert watch.received is None
    assert [x.getMessage() for x in caplog.records] == [
        "SIGUSR1 is handled by code that Python does not know now, which came after "
        "watch_signals(): unless it calls what was there, the signal is not noticed "
        "any more. Call watch_signals() again, after whatever else handles signals."
    ]
    faulthandler.unregister(USR1)
    assert signals.code_of(signals.action_of(USR1)) == before
    watch.stop()


def facts(action):
    """Return code, blocked signals and flags, as the C library of GNU has them."""
    return action[:16] + action[136:140]


@GLIBC
def test_all_that_the_system_was_told_of_a_signal_is_put_back(previous):
    signal.siginterrupt(USR1, False)
    before = facts(signals.action_of(USR1))
    watch = watching((USR1,))
    assert facts(signals.action_of(USR1)) != before
    watch.stop()
    assert facts(signals.action_of(USR1)) == before


def test_without_the_functions_of_c_signals_are_noticed_all_the_same():
    script = """
import ctypes
def refuse(name):
    raise OSError
ctypes.CDLL = refuse
previous = lambda *args: print("called")
signal.signal(SIGUSR1, previous)
watch = watching((SIGUSR1,))
raise_signal(SIGUSR1)
print(watch.received.name)
watch.stop()
print(signal.getsignal(SIGUSR1) is previous)
"""
    assert run(script) == (0, ["called", "SIGUSR1", "True"])


# Other loops


ASYNC = """
import asyncio

async def main():
    loop = asyncio.get_running_loop()
    came = asyncio.Event()
    async def send():
        os.kill(os.getpid(), SIGTERM)
        await asyncio.wait_for(came.wait(), 60)
        came.clear()
"""


def test_a_loop_that_handled_a_signal_before_handles_it_still():
    script = f"""{ASYNC}
    loop.add_signal_handler(SIGTERM, came.set)
    watch = watching()
    await send()
    print(watch.received.name)
    watch.stop()
    await send()
    loop.remove_signal_handler(SIGTERM)
    print(signal.getsignal(SIGTERM) is signal.SIG_DFL, signal.set_wakeup_fd(-1))

asyncio.run(main())
"""
    assert run(script) == (0, ["SIGTERM", "True", "-1"])


def test_a_loop_that_takes_a_signal_over_is_told_of_and_may_share_it():
    script = f"""{ASYNC}
    watch = watching()
    loop.add_signal_handler(SIGTERM, came.set)
    await send()
    print(watch.received)
    again = watching()
    watch.stop()
    await send()
    print(again.received.name)
    again.stop()
    await send()

asyncio.run(main())
"""
    child = python(SCRIPT + script)
    assert (child.returncode, child.stdout.split()) == (0, ["None", "SIGTERM"])
    assert child.stderr == (
        "SIGTERM is handled by asyncio.unix_events._sighandler_noop now, which came "
        "after watch_signals(): unless it calls what was there, the signal is not "
        "noticed any more. Call watch_signals() again, after whatever else handles "
        "signals.\n"
    )


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_signal_that_is_given_back_to_the_system_is_told_of(handler, caplog):
    watch = watching((USR1,))
    signal.signal(USR1, handler)
    assert watch.received is None
    (record,) = caplog.records
    assert "SIGUSR1 is handled by the default now" in record.getMessage()
    watch.stop()
    assert signal.getsignal(USR1) == handler
    signal.signal(USR1, signal.SIG_DFL)


def test_a_later_handler_of_python_takes_nothing_away(previous, caplog):
    watch, deaf = watching((USR1,)), Calls()
    signal.signal(USR1, deaf)
    signal.raise_signal(USR1)
    assert watch.received is USR1
    assert (deaf, previous) == ([USR1], [])
    assert caplog.records == []
    watch.stop()
    assert signal.signal(USR1, previous) is deaf


@pytest.fixture
def pipe():
    """What a program may have Python write the numbers of signals to."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    yield read, write
    signal.set_wakeup_fd(-1)
    os.close(read)
    os.close(write)


@pytest.mark.parametrize("when", ["before", "after"])
def test_where_a_program_has_python_write_to_it_does_so_still(previous, pipe, when):
    read, write = pipe
    if when == "before":
        signal.set_wakeup_fd(write)
    watch = watching((USR1,))
    if when == "after":
        signal.set_wakeup_fd(write)
    signal.raise_signal(USR1)
    assert watch.received is USR1
    assert os.read(read, 9) == bytes([USR1])
    watch.stop()
    assert signal.set_wakeup_fd(write) == write


def test_python_writes_nowhere_when_the_last_watch_is_stopped(previous):
    one, two = watching((USR1,)), watching((USR2,))
    one.stop()
    assert signal.set_wakeup_fd(-1) != -1
    two.stop()
    assert signal.set_wakeup_fd(-1) == -1


def test_any_number_of_signals_that_nobody_asks_for_may_come(previous):
    watch = watching((USR1,))
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    for _ in range(70_000):  # More than fit into a pipe.
        signal.raise_signal(signal.SIGWINCH)
    signal.raise_signal(USR1)
    assert watch.received is USR1
    watch.stop()
    signal.signal(signal.SIGWINCH, before)


# Threads, processes, blocked signals

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

BUSY = """
import ctypes
mutex = ctypes.create_string_buffer(64)
libc = ctypes.CDLL(None)
held = threading.Event()

def is_waited_for():  # In the C library of GNU.
    return int.from_bytes(mutex.raw[:4], sys.byteorder) == 2

def work():
    libc.pthread_mutex_lock(mutex)
    held.set()
    while not is_waited_for():
        pass
    signal.pthread_kill(threading.get_ident(), SIGTERM)
    print(cp.preempted, order)
    libc.pthread_mutex_unlock(mutex)

order = []
cp = elementsckpt.Checkpoint()
before = signal.signal(SIGTERM, lambda *_: order.append("handled"))
cp.watch_signals()
thread = threading.Thread(target=work)
thread.start()
held.wait()
libc.pthread_mutex_lock(mutex)  # Which no signal interrupts.
thread.join()
print(cp.preempted, order)
cp.close()
"""


@GLIBC
def test_other_threads_are_told_while_the_main_one_is_busy_with_other_code():
    script = f"import sys, elementsckpt\n{BUSY}"
    assert run(script) == (0, ["True", "[]", "True", "['handled']"])


COMPILED = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
import signal, threading
import elementsckpt, jax, numpy as np
from jax.experimental import io_callback

cp = elementsckpt.Checkpoint()
cp.watch_signals()
calls = []

def ask(x):
    calls.append(x)
    if len(calls) == 3:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    return np.bool_(cp.preempted)

def step(carry):
    count, _, x = carry
    over = io_callback(ask, jax.ShapeDtypeStruct((), bool), count)
    return count + 1, over, x + 1

def goes_on(carry):
    count, over, _ = carry
    return ~over & (count < 100_000)

mesh = jax.sharding.Mesh(jax.devices(), "i")
sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("i"))
x = jax.device_put(np.zeros(2, np.int32), sharding)
run = jax.jit(lambda x: jax.lax.while_loop(goes_on, step, (0, False, x)))
count, over, _ = jax.block_until_ready(run(x))
print(count, over, cp.preempted)
"""


def test_callbacks_of_compiled_code_are_told_at_once():
    pytest.importorskip("jax")
    child = python(COMPILED)
    assert child.returncode == 0, child.stderr
    assert child.stdout.split() == ["3", "True", "True"]


def test_a_child_that_a_signal_meets_as_it_is_forked_does_not_tell_its_parent():
    script = f"""
os.register_at_fork(after_in_child=lambda: os.kill(os.getpid(), SIGTERM))
from elementsckpt.run import signals
{FORK}
watch = watching()
signal.signal(SIGTERM, lambda *_: os._exit(3))
print(forked(lambda: 0))
print(watch.received)
"""
    child = python(SCRIPT.replace("from elementsckpt.run import signals", "") + script)
    assert (child.returncode, child.stderr) == (0, "")
    assert child.stdout.split() == ["3", "None"]


def test_a_signal_is_noticed_whichever_thread_it_goes_to(previous):
    watch, done = watching(), threading.Event()

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
    watch = watching()
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
watch = watching()
thread = threading.Thread(target=watch.stop)
thread.start()
thread.join()
print("stopped", flush=True)
raise_signal(SIGTERM)
print("alive")
"""
    assert run(script) == (-TERM, ["stopped"])


def test_a_forked_child_ends_by_a_signal_that_its_parent_watches():
    script = f"""{FORK}
watch = watching()
print(forked(lambda: raise_signal(SIGTERM) or 0))
print(watch.received)
raise_signal(SIGTERM)
print(watch.received.name)
"""
    assert run(script) == (0, [str(-TERM), "None", "SIGTERM"])


def test_a_forked_child_may_begin_a_watch_of_its_own():
    script = f"""{FORK}
watch = watching()

def work():
    own = watching()
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
watch = watching()

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
watch = watching()
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
    watch = watching()
    assert watch.received is None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [USR1])
    assert watch.received is USR1
    watch.stop()


def test_a_blocked_signal_that_is_let_through_too_late_ends_the_process():
    script = """
watch = watching()
signal.pthread_sigmask(signal.SIG_BLOCK, [SIGTERM])
raise_signal(SIGTERM)
watch.stop()
print(watch.received, flush=True)
signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGTERM])
print("alive")
"""
    assert run(script) == (-TERM, ["None"])


def test_a_signal_from_another_process_is_noticed(previous):
    watch = watching()
    python("import os, signal; os.kill(os.getppid(), signal.SIGUSR1)")
    assert watch.received is USR1
    watch.stop()
