"""The system refuses to read or to write, or other processes are in the way."""

from __future__ import annotations

import errno
import itertools
import os
import shutil

import numpy as np
import pytest

import elementsckpt
from elementsckpt import (
    Checkpoint,
    Files,
    ReadError,
    Saveable,
    SaveExistsError,
    SaveNotFoundError,
    Value,
    WriteError,
)
from elementsckpt.loading import open_save
from elementsckpt.storage import descriptors, disk, files
from elementsckpt.system.job import Group

from support.boxes import make
from support.folders import forge, noise

from .table import ALL, CHECK, NOTHING, TAKEN, failing, refuse, says

# The system refuses to read


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Permission denied. The save itself may be "
    "fine: check who may read it.",
)
def a_save_of_somebody_else(tmp, monkeypatch):
    cp = make(tmp, 1)
    path = cp.save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EACCES)
    make().load(path)


@says(
    ReadError,
    "Cannot read {tmp}: Permission denied. The save itself may be fine: check who may "
    "read it.",
)
def a_directory_of_somebody_else(tmp, monkeypatch):
    cp = make(tmp, 1)
    cp.save()
    yield
    refuse_to_list(monkeypatch)
    cp.load()


@says(
    ReadError,
    "Cannot read {tmp}/…/policy.files: Permission denied. The save itself may be fine: "
    "check who may read it.",
)
def a_folder_that_its_component_hides(tmp, monkeypatch):
    cp = Checkpoint(tmp)
    cp.policy = Files(save=lambda _: refuse_to_list(monkeypatch), load=print)
    yield
    cp.save()


@says(
    ReadError,
    "Cannot read {tmp}/save: Permission denied. The save itself may be fine: check who "
    "may read it.",
)
def a_folder_to_save_to_that_may_not_be_listed(tmp, monkeypatch):
    (tmp / "save").mkdir()
    yield
    refuse_to_list(monkeypatch, "listdir")
    make(state=1).save(tmp / "save")


def refuse_to_list(monkeypatch, call="scandir"):
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    monkeypatch.setattr(os, call, failing(error))


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Too many open files. The save itself may be "
    "fine: close files that are open, or allow more with ulimit -n.",
)
def too_many_open_files(tmp, monkeypatch):
    path = make(state=1).save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EMFILE)
    elementsckpt.read(path)


@says(
    ReadError,
    "Cannot read {tmp}/…/manifest.json: Resource temporarily unavailable. The save "
    "itself may be fine: try again.",
)
def a_system_that_is_busy(tmp, monkeypatch):
    path = make(state=1).save(tmp / "save").path
    yield
    refuse_to_open(monkeypatch, errno.EAGAIN)
    elementsckpt.read(path)


def refuse_to_open(monkeypatch, number):
    error = OSError(number, os.strerror(number))
    monkeypatch.setattr(os, "open", failing(error))


@says(
    ReadError,
    "{tmp}/… does not fit into memory: what is to be loaded takes 9,000,000 bytes, and "
    "of the … of this machine, or job, 4,096 are left. Load less of it with keys= or "
    "regex=, or map its arrays with mmap=True, which does not help where they are "
    "compressed.",
)
def more_than_there_is_memory(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0, 9_000_000)})
    cp.save()
    yield
    monkeypatch.setattr(elementsckpt.system.memory, "left_bytes", lambda: 4096)
    cp.load()


@says(
    ReadError,
    "{tmp}/…/manifest.json does not fit into memory: it has … bytes. The save itself "
    "may be fine: free memory and try again.",
)
def a_manifest_that_does_not_fit_into_memory(tmp, monkeypatch):
    path = make(tmp, 1).save(tmp / "save").path
    yield
    monkeypatch.setattr(files.File, "read", failing(MemoryError()))
    elementsckpt.info(path)


@says(
    ReadError,
    "'agent' in {tmp}/…/manifest.json does not fit into memory. Load less of it at a "
    "time, or map its arrays with mmap=True.",
)
def more_than_fits_into_memory(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0)})
    cp.save()
    yield
    fault = failing(MemoryError())
    monkeypatch.setattr("elementsckpt.storage.reader.read_block", fault)
    cp.load()


@says(
    ReadError,
    "'agent' in {tmp}/…/manifest.json needs a package or version that is not "
    "installed here (…). Install it, or leave the leaf out with keys= or regex=; "
    "elementsckpt.read returns tensors as NumPy arrays.",
)
def a_library_that_is_not_installed(tmp, monkeypatch):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    cp = make(tmp, {"w": np.ones(3, ml_dtypes.bfloat16)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["trees"][0]["leaves"][0].update(dtype="float7"),
    )
    yield
    cp.load()


# Other processes of the job


def as_process_1(monkeypatch, answer):
    """Be one of two processes, to which process 0 said something, or nothing."""
    job = Group("torch.distributed", 1, 2, print, lambda key: answer)
    monkeypatch.setattr("elementsckpt.system.job.current", lambda: job)


@says(
    ReadError,
    "Process 0 of torch.distributed did not call load_or_save() with {tmp} for 600 s, "
    "and process 1 of 2 of torch.distributed, with write=False, resumes what that one "
    "does. Call the same methods in all processes, or load() in one that loads by "
    "itself.",
)
def a_process_that_does_not_tell_what_it_resumes(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, None)
    yield
    monkeypatch.setattr("time.monotonic", itertools.count(0, 601).__next__)
    cp.load_or_save()


IN_JOB = (
    "This is process 1 of 2 of torch.distributed: if others of them save there, too, "
    "let process 0 alone write, with Checkpoint(..., write=rank == 0), or call "
    "save_pytree() in that one only. If not, choose another path"
)


@says(
    SaveExistsError,
    f"Cannot save to {{tmp}}/save: it holds a save already. {IN_JOB}",
    " or remove it first; it was not touched.",
)
def a_path_to_which_another_process_of_the_job_has_saved(tmp, monkeypatch):
    as_process_1(monkeypatch, None)
    make(state=1).save(tmp / "save")
    yield
    elementsckpt.save_pytree(tmp / "save", 1)


@says(
    SaveExistsError,
    f"Cannot save to {{tmp}}/save: another save is being written there. {IN_JOB}",
    ", or wait until it is finished.",
)
def a_path_to_which_another_process_of_the_job_is_saving(tmp, monkeypatch):
    as_process_1(monkeypatch, None)
    monkeypatch.setattr(descriptors, "lock", lambda _: False)
    yield
    make(state=1).save(tmp / "save")


@says(
    ReadError,
    "Process 0 of torch.distributed could not resume from {tmp}: it is damaged. So "
    "process 1 of 2 of torch.distributed cannot either: restore there what that one "
    "needs, and start all of them again.",
)
def a_process_that_could_not_resume(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, '{"error": "it is damaged"}')
    yield
    cp.load_or_save()


@says(
    SaveNotFoundError,
    "There is no save in {tmp}/gone: that path was not found (…). Check the path, or "
    "make a save there first. Process 0 of this job resumed it, so it was pruned "
    "since, or is on another machine. Call save() only when all processes have "
    "resumed, in a directory that all of them see.",
)
def a_save_that_another_process_resumed_and_that_is_gone(tmp, monkeypatch):
    cp = make(tmp, 0, write=False)
    as_process_1(monkeypatch, '{"save": "gone"}')
    yield
    cp.load_or_save()


@says(
    ReadError,
    "JAX could not make the arrays of 'agent' in {tmp}/…/manifest.json: out of memory. "
    "Free memory of the device, or load less at a time.",
)
def a_device_without_memory(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"w": jax.numpy.ones(3)})
    cp.save()
    yield
    monkeypatch.setattr(jax, "device_put", failing(RuntimeError("out of memory.")))
    cp.load()


@says(
    ReadError,
    "state/w cannot be put where the current one is, …: out of memory. Choose another "
    "device or sharding, or free memory of this one",
    NOTHING,
)
def a_device_without_memory_for_a_leaf(tmp, monkeypatch):
    jax = pytest.importorskip("jax")
    cp = Checkpoint(tmp)
    cp.state = Value({"w": jax.numpy.ones(3)})
    cp.save()
    yield
    monkeypatch.setattr(jax, "device_put", failing(RuntimeError("out of memory.")))
    cp.load()


@says(
    ReadError,
    "agent/key holds typed keys of 'dice', which the installed JAX does not make: …. "
    "Install one that does.",
)
def a_generator_that_jax_does_not_know(tmp, _):
    jax = pytest.importorskip("jax")
    cp = make(tmp, {"key": jax.random.key(0)})
    forge(
        cp.save().path,
        lambda x: x["components"][0]["trees"][0]["leaves"][0].update(value="dice"),
    )
    yield
    cp.load()


@says(
    ReadError,
    "20 times a save in {tmp} was removed while it was read: another process saves "
    "there, and faster than this one reads. Keep more saves with keep=.",
)
def a_run_that_saves_faster_than_others_read(tmp, monkeypatch):
    trainer = make(tmp, noise(0))
    trainer.save()
    opened = open_save.OpenSave.components

    def components(self, *args):
        trainer.save()
        return opened(self, *args)

    yield
    monkeypatch.setattr(open_save.OpenSave, "components", components)
    elementsckpt.read(tmp)


# The disk refuses to write

REFUSED = "The disk refused a change to {tmp}/… (%s): earlier saves are untouched; "
GONE = (  # The save folder, or the directory: whichever is asked for first.
    "The disk refused a change to {tmp}/… (No such file or directory): it was "
    "removed or moved, so check who else uses it, and save again."
)


def refusing(number, text, remedy, call=os.mkdir):
    """Return a situation in which one system call fails."""

    @says(WriteError, REFUSED % text, remedy, ".")
    def steps(tmp, monkeypatch):
        cp = make(tmp, 1)
        cp.save()
        yield
        refuse(monkeypatch, call, number)
        cp.save()

    name = f"a_disk_that_says_{errno.errorcode[number]}_to_{call.__name__}"
    ALL[name] = ALL.pop("steps")
    return steps


SPACE = "free space, keep fewer saves with keep=, or choose another directory"
FILES = "close files that are open, or allow more with ulimit -n"
refusing(errno.ENOSPC, "No space left on device", SPACE)
refusing(errno.EDQUOT, "Disk quota exceeded", SPACE)
refusing(errno.EACCES, "Permission denied", "check who may write there")
refusing(errno.EPERM, "Operation not permitted", "check who may write there")
refusing(errno.EROFS, "Read-only file system", "choose another directory")
refusing(errno.EMFILE, "Too many open files", FILES)
refusing(errno.ENFILE, "Too many open files in system", FILES)
refusing(errno.ENAMETOOLONG, "File name too long", "choose a shorter path")
refusing(errno.EIO, "Input/output error", "check the disk, or choose another directory")
refusing(
    errno.EIO,
    "Input/output error",
    "check the disk, or choose another directory",
    call=os.fsync,
)
refusing(errno.EMFILE, "Too many open files", FILES, call=os.open)
refusing(errno.ENOSPC, "No space left on device", SPACE, call=os.pwrite)


@says(
    WriteError,
    REFUSED % "Not a directory",
    "a part of the path is a file, so choose another directory.",
)
def a_file_in_the_path(tmp, _):
    (tmp / "mine").touch()
    cp = make(tmp / "mine" / "ckpt", 1)
    yield
    cp.save()


NOWHERE = "{tmp}/link is a link to {tmp}/unmounted, which is not there."


@says(
    WriteError,
    "Cannot save to {tmp}/link/ckpt: ",
    NOWHERE,
    " Mount or make what it leads to, or choose another directory.",
)
def a_directory_below_a_link_that_leads_nowhere(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    cp = make(tmp / "link" / "ckpt", 1)
    yield
    cp.load_or_save()


@says(SaveNotFoundError, "There is no save in {tmp}/link: ", NOWHERE, CHECK)
def a_path_that_is_a_link_that_leads_nowhere(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    yield
    elementsckpt.read(tmp / "link")


@says(SaveExistsError, "Cannot save to {tmp}/link: ", NOWHERE, TAKEN)
def a_link_that_leads_nowhere_where_to_save(tmp, _):
    (tmp / "link").symlink_to(tmp / "unmounted")
    yield
    elementsckpt.save_pytree(tmp / "link", 1)


@says(WriteError, GONE)
def a_directory_that_is_removed_meanwhile(tmp, _):
    cp = Checkpoint(tmp / "ckpt")
    cp.agent = Saveable(save=lambda: shutil.rmtree(tmp / "ckpt"), load=print)
    yield
    cp.save()


@says(WriteError, GONE)
def a_folder_that_is_removed_before_it_is_synced(tmp, monkeypatch):
    cp = make(tmp / "ckpt", 1)

    def remove(call, *args):
        result = call(*args)
        if call is os.replace and args[1].name == "manifest.json":
            shutil.rmtree(tmp / "ckpt")
        return result

    yield
    monkeypatch.setattr(disk, "syscall", remove)
    cp.save()


@says(
    WriteError,
    "The disk has no room: {tmp}/… needs … bytes more and 4,096 are free. Earlier "
    "saves are untouched; free space, keep fewer saves with keep=, or choose another "
    "directory.",
)
def a_disk_with_too_little_room(tmp, monkeypatch):
    cp = make(tmp, {"w": noise(0)})
    found = os.statvfs(tmp)
    small = os.statvfs_result((found[0], 4096, 100, 1, 1, *found[5:]))
    yield
    monkeypatch.setattr(os, "statvfs", lambda _: small)
    cp.save()


@says(
    WriteError,
    "Cannot make a save folder in {tmp}: 100 times something was in the way, or the "
    "directory vanished. Check what it is and who else uses it.",
)
def a_directory_in_which_all_names_are_taken(tmp, monkeypatch):
    cp = make(tmp, 1)
    yield
    refuse(monkeypatch, os.mkdir, errno.EEXIST)
    cp.save()
