"""Environments in worker processes: asks the workers, and answers inside them.

The vector environments of Gymnasium and Stable-Baselines3 call a method of the
environment in each worker, by name. Ours is put there by an argument that installs it
when the worker unpickles it, so that programs change nothing. A worker that raises is
shut down by its library: ours never raises, and its errors are answers, too.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, NamedTuple

from ..components.rng import GlobalRNG, global_generators
from ..errors import DamagedError, damage, reason
from ..system import threads
from . import snapshots
from .families import Given, Refused, Unfit
from .restoring import Restore

_METHOD = "_elementsckpt"  # Ours, of `gymnasium.Env` in the workers.
_LOOK_S = 0.1
# Functions with such a loop, of Gymnasium and Stable-Baselines3, and its variables.
_VARIABLES = {"_async_worker": "autoreset", "_worker": "reset_info"}
STEPS = 2  # That Gymnasium's loop takes after a load, without the environment.
_AGAIN = "Make the vector environment again, and load the newest save."


# In the program


class Workers(NamedTuple):
    """The workers of a vector environment, which answer nothing else at the moment.

    Attributes:
      pipes: The program's end of the pipe to each.
      processes: The processes.
      request: Given a method and its arguments, returns the message for a call.
      result: Given the answer to such a message, returns what the method returned.
    """

    pipes: Sequence[Any]
    processes: Sequence[Any]
    request: Callable[[str, tuple[Any, ...]], Any]
    result: Callable[[Any], Answer]

    def save(self, parts: Given | None) -> list[Any]:
        """Return the state of each worker's environment, as plain data.

        Raises:
          Refused: workers cannot save it, or have died.
        """
        try:
            answers = self._ask("save", [()] * len(self.pipes), parts)
        except Died as error:
            raise Refused(inside=error.sentences, remedy=_AGAIN) from None
        refused = _sentences(answers)
        if refused:
            remedies = {answer.remedy for answer in answers if answer.problems}
            raise Refused(
                inside=refused, remedy=remedies.pop() if len(remedies) == 1 else None
            )
        return [answer.data for answer in answers]

    def check(self, saved: Sequence[Any], parts: Given | None) -> None:
        """Have each worker compare a state with its environment; nothing changes.

        Raises:
          Unfit: states do not fit, or workers have died.
          DamagedError: states are damaged.
        """
        if len(saved) != len(self.pipes):
            here = f"{len(self.pipes)} here"
            raise Unfit(f"saved with {len(saved)} workers, and there are {here}")
        self._tell("check", [(state,) for state in saved], parts)

    def load(
        self, arguments: Sequence[tuple[Any, ...]], then: Sequence[Any] = ()
    ) -> None:
        """Have each worker load the state that it has checked.

        Args:
          arguments: What each needs beside it.
          then: Further messages to each that has done so.

        Raises:
          Unfit: workers have died.
        """
        self._tell("load", arguments, None, then)

    def _tell(
        self,
        verb: str,
        arguments: Sequence[tuple[Any, ...]],
        parts: Given | None,
        then: Sequence[Any] = (),
    ) -> None:
        try:
            answers = self._ask(verb, arguments, parts, then)
        except Died as error:
            raise Unfit(inside=error.sentences) from None
        problems = _sentences(answers)
        if any(answer.is_damaged for answer in answers):
            raise DamagedError("; ".join(problems))
        if problems:
            raise Unfit(inside=problems)

    def _ask(
        self,
        verb: str,
        arguments: Sequence[tuple[Any, ...]],
        parts: Given | None,
        then: Sequence[Any] = (),
    ) -> list[Answer]:
        """Have our method called in each worker, and return what it answers.

        A thread talks to them: an interrupt between a message and its answer would
        leave the answer in the pipe, where the program would take it for that to its
        next message.

        Raises:
          Died: workers have died; the answers of the others have been read.
        """
        # As these libraries pickle what makes environments. Inside of bytes, what
        # cannot be unpickled is an error of our method, not the end of the worker.
        pickled = importlib.import_module("cloudpickle").dumps(parts)
        messages = [
            self.request(_METHOD, (_Installer(), verb, pickled, *more))
            for more in arguments
        ]
        talk = _Talk(self, messages, then)
        try:
            if not threads.start(talk.run, daemon=True):
                talk.run()
            talk.ended.wait()
        except BaseException:
            talk.leave()
            raise
        return talk.outcome()


class Died(Exception):
    """Workers have died.

    Attributes:
      sentences: That they have, each.
    """

    def __init__(self, numbers: Sequence[int]) -> None:
        self.sentences = [f"worker {number} has died" for number in numbers]
        super().__init__(*self.sentences)


class _Talk:
    """Messages to workers, and their answers; it takes place once, and as a whole.

    Args:
      workers: The workers.
      messages: A message that calls our method, for each.
      then: Messages for each of those that answer that they have done what was asked.

    Attributes:
      ended: Set when it has taken place.
    """

    def __init__(
        self, workers: Workers, messages: Sequence[Any], then: Sequence[Any]
    ) -> None:
        self.ended = threading.Event()
        self._workers = workers
        self._messages = messages
        self._then = then
        self._turn = [None]  # Who takes it decides whether it takes place.
        self._answers: list[Answer] = []
        self._dead: list[int] = []
        self._error: BaseException | None = None

    def run(self) -> None:
        """Talk, unless `leave` was called before."""
        try:
            self._turn.pop()
        except IndexError:
            return
        try:
            self._talk()
        except BaseException as error:
            self._error = error
        self.ended.set()

    def leave(self) -> None:
        """Wait until all answers are read, or see to it that nothing is sent."""
        try:
            self._turn.pop()
        except IndexError:
            self.ended.wait()

    def outcome(self) -> list[Answer]:
        """Return the answers of our method.

        Raises:
          Died: workers have died.
        """
        if self._error is not None:
            raise self._error
        if self._dead:
            raise Died(self._dead)
        return self._answers

    def _talk(self) -> None:
        found = self._round(dict(enumerate(self._messages)))
        answers = {n: self._workers.result(answer) for n, answer in found.items()}
        for message in self._then:
            ready = [n for n in found if not answers[n].problems]
            found = self._round(dict.fromkeys(ready, message))
        self._answers = list(answers.values())

    def _round(self, messages: Mapping[int, Any]) -> dict[int, Any]:
        """Send messages; return the answers of workers that live, by number.

        Raises:
          Exception: the first error of a pipe; all answers have been read.
        """
        asked = [n for n, message in messages.items() if self._send(n, message)]
        found = {n: answer for n in asked for answer in self._receive(n)}
        if self._error is not None:
            raise self._error
        return found

    def _send(self, number: int, message: Any) -> bool:
        try:
            self._workers.pipes[number].send(message)
        except OSError:
            self._dead.append(number)
            return False
        except Exception as error:
            self._error = self._error or error
            return False
        return True

    def _receive(self, number: int) -> Iterator[Any]:
        """Yield the answer, unless the worker dies before it answers."""
        pipe, process = self._workers.pipes[number], self._workers.processes[number]
        # Of a worker that was killed, the pipe may have no end: others that were forked
        # later hold it open, too.
        while process.is_alive() and not pipe.poll(_LOOK_S):
            pass
        try:
            if pipe.poll():
                yield pipe.recv()
                return
        except (EOFError, OSError):
            pass
        except Exception as error:  # It was read, and cannot be unpickled.
            self._error = self._error or error
            return
        self._dead.append(number)


def _sentences(answers: Sequence[Answer]) -> list[str]:
    return [
        f"worker {number}: {problem}"
        for number, answer in enumerate(answers)
        for problem in answer.problems
    ]


# In the workers


class Answer(NamedTuple):
    """What a worker answers.

    Attributes:
      data: What was asked for.
      problems: Why it cannot be done, as sentences; none if it was.
      is_damaged: Whether what was given is damaged.
      remedy: What to do, if that is not what helps with most objects.
    """

    data: Any = None
    problems: tuple[str, ...] = ()
    is_damaged: bool = False
    remedy: str | None = None


class _Installer:
    """An argument that installs our method where it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[], None], tuple[()]]:
        return install, ()


def install() -> None:
    """Let environments of this process answer us."""
    setattr(sys.modules["gymnasium"].Env, _METHOD, _answer)


def _answer(
    env: Any, _installed: None, verb: str, pickled: bytes, *arguments: Any
) -> Answer:
    try:
        data = _VERBS[verb](env, pickle.loads(pickled), *arguments)
    except Refused as error:
        return Answer(problems=_told(error), remedy=error.remedy)
    except Unfit as error:
        return Answer(problems=_told(error))
    except DamagedError as error:
        return Answer(problems=(str(error),), is_damaged=True)
    except Exception as error:
        return Answer(problems=(f"{type(error).__name__}: {reason(error)}",))
    return Answer(data)


def _told(error: Refused | Unfit) -> tuple[str, ...]:
    return error.inside or tuple(str(item) for item in error.args if item)


def _save(env: Any, parts: Given | None) -> dict[str, Any]:
    saved: dict[str, Any] = {
        "env": snapshots.capture(env, parts),
        "generators": GlobalRNG().save(),
    }
    loop = _loop()
    if "autoreset" in loop:
        saved["reset_is_due"] = bool(loop["autoreset"])
    elif "reset_info" in loop:
        saved["reset_info"] = snapshots.capture(loop["reset_info"], parts)
    else:
        raise Refused(inside=["it has a loop of its own"])
    return saved


class _Checked(NamedTuple):
    """What a load puts into the environment, which is as it was at the check.

    Attributes:
      env: The environment's state.
      info: That of what the loop holds of the last reset, for Stable-Baselines3.
      generators: The states of the global generators.
      reset_is_due: Whether the loop resets at the next step, for Gymnasium.
    """

    env: Restore
    info: Restore | None
    generators: Any
    reset_is_due: bool


# The state that was checked last; a load follows its check at once.
_checked: list[_Checked] = []


def _check(env: Any, parts: Given | None, saved: dict[str, Any]) -> None:
    _checked.clear()
    loop = _loop()
    with damage("The state of a worker"):
        generators, is_due = saved["generators"], saved.get("reset_is_due", False)
        global_generators(generators)
        info = saved["reset_info"] if "reset_info" in loop else None
        state = saved["env"]
    found = snapshots.check(env, state, parts)
    if info is not None:
        info = snapshots.check(loop["reset_info"], info, parts)
    _checked.append(_Checked(found, info, generators, bool(is_due)))


def _load(env: Any, _parts: Given | None, observation: Any = None) -> None:
    found = _checked.pop()
    found.env.load()
    if found.info is not None:
        found.info.load()
    else:
        _answer_next(env, observation, is_done=found.reset_is_due)
    # A component for the program's own generators does not reach these.
    GlobalRNG().load(found.generators)


def _answer_next(env: Any, observation: Any, *, is_done: bool) -> None:
    """Answer the next two steps in place of the environment, and a reset that is due.

    Whether Gymnasium's loop resets the environment at the next step, and the last
    observation, are local variables of the loop, which a step sets. If a reset was due
    here, the first step asks for it. The second says whether one was due in the save.
    """
    left = STEPS
    own = {name: vars(env)[name] for name in ("step", "reset") if name in vars(env)}

    def answer() -> bool:
        nonlocal left
        left -= 1
        if not left:
            del env.step, env.reset
            vars(env).update(own)
        return is_done and not left

    def step(_: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return observation, 0.0, answer(), False, {}

    def reset(**_: Any) -> tuple[Any, dict[str, Any]]:
        answer()
        return observation, {}

    env.step, env.reset = step, reset


def _loop() -> dict[str, Any]:
    """Return the variable that matters of the loop that answers the program, if any."""
    for frame in _frames():
        name = _VARIABLES.get(frame.f_code.co_name)
        if name is not None and name in frame.f_locals:
            return {name: frame.f_locals[name]}
    return {}


def _frames() -> Iterator[FrameType]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


_VERBS: dict[str, Callable[..., Any]] = {"save": _save, "check": _check, "load": _load}
