"""Two processes of one job that save and resume, run by test_group.py.

Each function is a claim, which both processes check. It gets the process and an empty
folder that they share.
"""

from __future__ import annotations

import functools
import json
import logging
import pathlib
import sys
import traceback

import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    DamagedError,
    ReadError,
    SaveExistsError,
    SaveNotFoundError,
    StateError,
)

from support import boxes


class Torch:
    """A process as torch.distributed knows it."""

    name = "torch.distributed"

    def __init__(self, rank, port):
        import torch.distributed as group

        self.rank, self._group = rank, group
        store = group.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
        group.init_process_group("gloo", store=store, rank=rank, world_size=2)

    def meet(self):
        """Wait for the other process."""
        self._group.barrier()


class Jax:
    """A process as jax.distributed knows it."""

    name = "jax.distributed"

    def __init__(self, rank, port):
        import jax
        from jax._src import distributed

        self.rank, self._count = rank, 0
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
        self._client = distributed.global_state.client

    def meet(self):
        self._count += 1
        self._client.wait_at_barrier(f"tests/{self._count}", 200_000)


class Warnings(logging.Handler):
    """Keeps what the library warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.said = []

    def emit(self, record):
        self.said.append(record.getMessage())


warnings = Warnings()


def make(directory, state, **options):
    cp = boxes.make(directory, state, fsync=False, **options)
    cp.step = elementsckpt.Counter(state)
    return cp


def in_turn(process, late, first, second):
    """Do one thing in one process, and then the other in the one that is late."""
    if process.rank != late:
        found = first()
        process.meet()
    else:
        process.meet()
        found = second()
    process.meet()
    return found


def both_start_afresh(process, folder):
    """Although the one that is late finds the first save of the other."""
    cp = make(folder, process.rank, write=process.rank == 0)
    assert in_turn(process, 1, cp.load_or_save, cp.load_or_save) is False
    assert cp.agent.state == process.rank
    assert len(cp.saves()) == 1


def both_resume_the_same_save(process, folder):
    """Although the one that is late finds a newer one."""
    cp = make(folder, 10 + process.rank, write=process.rank == 0, keep=2)
    cp.load_or_save()
    process.meet()
    resumed = make(folder, 20 + process.rank, write=process.rank == 0, keep=2)

    def resume_and_save():
        found = resumed.load_or_save()
        resumed.step.increment()
        resumed.agent.state += 100
        resumed.save()
        return found

    assert in_turn(process, 1, resume_and_save, resumed.load_or_save) is True
    assert resumed.agent.state == (110 if process.rank == 0 else 10)
    assert int(resumed.step) == (11 if process.rank == 0 else 10)
    assert len(resumed.saves()) == 2


class Together(boxes.Box):
    """A component whose two methods take all processes, as those of shards do."""

    def __init__(self, process):
        super().__init__(0)
        self.process = process

    def save(self):
        self.process.meet()
        return super().save()

    def load(self, data):
        self.process.meet()
        super().load(data)


def components_may_take_all_processes(process, folder):
    for expected in (False, True):
        cp = Checkpoint(folder, write=process.rank == 0, fsync=False)
        cp.together = Together(process)
        assert cp.load_or_save() is expected
        assert cp.together.loads == expected
        assert cp.together.saves == (not expected)


def a_save_of_which_one_has_a_part_is_refused_by_both(process, folder):
    """Also by the one that writes nothing."""
    if not isinstance(process, Torch):
        return
    import torch
    from torch.distributed import fsdp

    model = torch.nn.Linear(4, 2)
    fsdp.fully_shard(model)
    cp = Checkpoint(folder, write=process.rank == 0)
    cp.model = model
    with pytest.raises(StateError, match="model/weight is a DTensor, and this proc"):
        cp.load_or_save()
    process.meet()
    assert list(folder.glob("[!.]*")) == []


def what_is_loaded_later_is_of_each_alone(process, folder):
    cp = make(folder, 1, write=process.rank == 0, keep=None)
    cp.load_or_save()
    cp.agent.state = 2
    cp.save()
    process.meet()
    first, second = [save.path for save in cp.saves()]
    cp.load(first if process.rank else second)
    assert cp.agent.state == (1 if process.rank else 2)
    process.meet()


def two_that_write_are_told(process, folder):
    """Whoever is late, and names what to do."""
    for late in (0, 1):
        cp = make(folder / str(late), process.rank)
        del warnings.said[:]
        in_turn(process, late, cp.load_or_save, cp.load_or_save)
        told = [text for text in warnings.said if "write=rank == 0" in text]
        if process.rank == late:
            this = f"This is process {late} of 2 of {process.name}, and resumes from "
            other = f": process {1 - late} resumes from there, too."
            assert told[0].startswith(f"{this}{folder}/{late}{other}")
            assert len(told) == 1
        else:
            assert told == []


def two_that_save_are_told_once(process, folder):
    cp = make(folder, process.rank)
    del warnings.said[:]

    def save():
        cp.save()
        cp.save()

    in_turn(process, 1, save, save)
    told = [text for text in warnings.said if "is writing to" in text]
    if process.rank == 0:
        assert told == []
    else:
        (text,) = told
        assert f"this is process 1 of 2 of {process.name}: let one of them" in text
        assert "Checkpoint(..., write=rank == 0)" in text
    process.meet()


def two_that_save_to_one_path_are_told(process, folder):
    """By whoever is late, and by one of two that save at once."""

    def attempt(save, path):
        try:
            save(path)
        except SaveExistsError as error:
            said = str(error)
            assert f"This is process {process.rank} of 2 of {process.name}: " in said
            assert "let process 0 alone write, with Checkpoint(..., write=ran" in said
            return False
        return True

    def save_pytree(path):
        elementsckpt.save_pytree(path, [process.rank])

    cp = boxes.make(state=process.rank)
    for number, save in enumerate([cp.save, save_pytree]):
        for late in range(2):
            one = functools.partial(attempt, save, folder / f"{number}-{late}")
            assert in_turn(process, late, one, one) is (process.rank != late)
        attempt(save, folder / f"{number}-at-once")
        process.meet()
        assert elementsckpt.exists(folder / f"{number}-at-once")
        process.meet()


def directories_of_their_own_need_no_word(process, folder):
    cp = make(folder / str(process.rank), process.rank)
    del warnings.said[:]
    assert in_turn(process, 1, cp.load_or_save, cp.load_or_save) is False
    assert make(folder / str(process.rank), 5).load_or_save() is True
    assert warnings.said == []


def process_0_alone_waits_for_nobody(process, folder):
    if process.rank == 0:
        cp = make(folder, 1)
        assert cp.load_or_save() is False
        assert cp.load_or_save() is True
    process.meet()


def a_failure_is_told(process, folder):
    cp = make(folder, 1, write=process.rank == 0)
    if process.rank == 0:
        boxes.damage(boxes.protected(cp.save().path)[0])
    process.meet()
    error = DamagedError if process.rank == 0 else ReadError
    with pytest.raises(error, match=r"manifest\.json is damaged") as caught:
        cp.load_or_save()
    said = str(caught.value)
    if process.rank == 1:
        name = process.name
        assert said.startswith(f"Process 0 of {name} could not resume from {folder}: ")
        assert f". So process 1 of 2 of {name} cannot either: " in said
    process.meet()


def a_save_that_is_gone_is_told(process, folder):
    if process.rank == 0:
        make(folder, 1).save()
    process.meet()
    cp = make(folder, 0, write=process.rank == 0, keep=1)

    def resume_and_save():
        cp.load_or_save()
        cp.agent.state = 2
        cp.save()

    def resume():
        with pytest.raises(SaveNotFoundError, match="Process 0 of this job resumed it"):
            cp.load_or_save()

    in_turn(process, 1, resume_and_save, resume)


CLAIMS = [
    both_start_afresh,
    both_resume_the_same_save,
    components_may_take_all_processes,
    a_save_of_which_one_has_a_part_is_refused_by_both,
    what_is_loaded_later_is_of_each_alone,
    two_that_write_are_told,
    two_that_save_are_told_once,
    two_that_save_to_one_path_are_told,
    directories_of_their_own_need_no_word,
    process_0_alone_waits_for_nobody,
    a_failure_is_told,
    a_save_that_is_gone_is_told,
]


def main(kind, rank, port, folder):
    """Print, as JSON, what is wrong with each claim, "" if nothing is."""
    logging.getLogger("elementsckpt").addHandler(warnings)
    process = {"torch": Torch, "jax": Jax}[kind](int(rank), int(port))
    results = {}
    for claim in CLAIMS:
        shared = pathlib.Path(folder, claim.__name__)
        shared.mkdir(exist_ok=True)
        results[claim.__name__] = ""
        try:
            claim(process, shared)
        except Exception:
            results[claim.__name__] = traceback.format_exc()
            break  # The other process is somewhere else now.
    print(json.dumps(results), flush=True)
    if not any(results.values()):
        process.meet()


if __name__ == "__main__":
    main(*sys.argv[1:])
