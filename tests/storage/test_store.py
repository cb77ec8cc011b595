"""What any store must do; each kind of store is tried with all of it."""

import threading

import numpy as np
import pytest

from elementsckpt import DamagedError, SaveExistsError, WriteError
from elementsckpt.format import names
from elementsckpt.format.digests import digest
from elementsckpt.format.header import Header, Tensors
from elementsckpt.format.manifest import Segment
from elementsckpt.storage.local import LocalStore
from elementsckpt.user.notices import Notices

from support.memory_store import MemoryStore

STORES = {
    "local": lambda path: LocalStore(path, Notices()),
    "memory": lambda path: MemoryStore(path.name),
}
CONTENT = np.arange(1000, dtype=np.uint8)
FILE = names.segment("agent", 1, 0)


@pytest.fixture(params=STORES)
def store(request, tmp_path):
    """Return an empty store of each kind."""
    return STORES[request.param](tmp_path / "run")


@pytest.fixture(params=[True, False], ids=["fsync", "no fsync"])
def fsync(request):
    return request.param


def header():
    header = Header("@1")
    header.add(["x"], [Tensors("U8", (CONTENT.size,), 0, CONTENT.size, 1)], 0)
    return header.encode()


def write(draft, file=FILE):
    """Write a segment, the header last, and return its entry."""
    start, sink = header(), draft.segment(file, 100)
    sink.write(CONTENT[500:], len(start) + 500)
    sink.write(CONTENT[:500], len(start))
    sink.write(start, 0)
    sink.finish()
    sink.close()
    return Segment(file, len(start) + CONTENT.size, len(start), digest(start))


def make(store, step=None, fsync=False):
    """Make a save of one segment; return its name and the entry of the segment."""
    draft = store.begin(step, fsync=fsync)
    segment = write(draft)
    draft.commit(b'{"n": 1}')
    return draft.path.name, segment


def content(source, segment, **options):
    memory = np.zeros(CONTENT.size, np.uint8)
    with source.open(segment, **options) as file:
        file.read(memory, segment.start)
    return memory


# A save


def test_what_was_committed_is_there_and_is_what_was_written(store, fsync):
    name, segment = make(store, 7, fsync=fsync)
    assert store.names() == [name]
    assert names.step_of(name) == 7
    source = store.open(name)
    assert source.path == store.path / name
    assert bytes(source.manifest()) == b'{"n": 1}'
    assert {names.MANIFEST, FILE} == {*source.names()}
    assert np.array_equal(content(source, segment), CONTENT)
    assert np.array_equal(content(source, segment, is_verified=True), CONTENT)
    assert not source.has_no_manifest()
    assert not source.is_missing()
    assert not source.lacks(segment)
    assert not source.is_link


def test_nothing_is_a_save_before_its_commit(store, fsync):
    draft = store.begin(None, fsync=fsync)
    write(draft)
    source = store.open(draft.path.name)
    assert source.has_no_manifest()
    assert source.signature() is None
    with pytest.raises(DamagedError):
        source.manifest()
    draft.commit(b"{}")
    assert not source.has_no_manifest()


def test_a_draft_that_was_abandoned_leaves_nothing(store, fsync):
    draft = store.begin(None, fsync=fsync)
    write(draft)
    draft.abandon()
    assert store.names() == []
    assert store.open(draft.path.name).is_missing()


def test_a_save_that_was_committed_is_not_abandoned(store):
    draft = store.begin(None, fsync=False)
    draft.commit(b"{}")
    draft.abandon()
    assert store.names() == [draft.path.name]


def test_what_is_not_there_is_missing(store):
    assert store.names() == []
    source = store.open("nothing")
    assert source.is_missing()
    assert source.has_no_manifest()
    assert source.names() == []
    with pytest.raises(DamagedError):
        source.manifest()


def test_each_save_has_a_name_of_its_own(store):
    found = [make(store, 3)[0] for _ in range(5)]
    assert len({*found}) == 5
    assert {*store.names()} == {*found}


def test_saves_that_are_begun_at_the_same_time_have_names_of_their_own(store):
    found, start = [], threading.Barrier(4)

    def work():
        start.wait()
        found.append(make(store)[0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({*found}) == 4


def test_a_name_that_is_taken_is_refused(store, fsync):
    store.begin_at("mine", fsync=fsync).commit(b"{}")
    with pytest.raises(SaveExistsError):
        store.begin_at("mine", fsync=fsync)
    assert bytes(store.open("mine").manifest()) == b"{}"


def test_a_manifest_has_another_signature_when_it_was_written_anew(store):
    signatures = {store.open(make(store)[0]).signature() for _ in range(3)}
    assert len(signatures) == 3


@pytest.mark.parametrize("size", [1, 8, 100])
def test_a_manifest_is_read_from_its_start(store, size):
    source = store.open(make(store)[0])
    start = source.start(size)
    assert bytes(start.content) == b'{"n": 1}'[:size]
    assert start.size == 8
    assert start.signature == source.signature()


def test_what_is_not_there_has_no_start(store):
    with pytest.raises(DamagedError):
        store.open("nothing").start(8)


# Segments


def test_threads_write_to_a_segment_at_the_same_time(store):
    draft = store.begin(None, fsync=False)
    sink, start = draft.segment(FILE, 100), header()
    parts = [CONTENT[n : n + 10] for n in range(0, CONTENT.size, 10)]

    def work(first):
        for number in range(first, len(parts), 4):
            sink.write(parts[number], len(start) + 10 * number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sink.write(start, 0)
    sink.finish()
    sink.close()
    size = len(start) + CONTENT.size
    segment = Segment(FILE, size, len(start), digest(start))
    assert np.array_equal(content(draft.source, segment), CONTENT)


def test_a_segment_is_read_when_its_save_is_removed(store):
    name, segment = make(store)
    memory = np.zeros(CONTENT.size, np.uint8)
    with store.open(name).open(segment) as file:
        assert store.remove(name, fsync=False)
        file.read(memory, segment.start)
    assert np.array_equal(memory, CONTENT)


def test_a_map_is_a_copy(store):
    name, segment = make(store)
    with store.open(name).open(segment) as file:
        data = file.map()
    assert data is not None
    data[segment.start :] = 0
    assert np.array_equal(content(store.open(name), segment), CONTENT)


@pytest.mark.parametrize("damage", ["size", "digest", "file"])
def test_a_segment_that_is_not_what_the_manifest_says_is_refused(store, damage):
    name, segment = make(store)
    if damage == "size":
        segment.size += 1
    elif damage == "digest":
        segment.digest = "0" * 16
    else:
        segment.file = names.segment("agent", 1, 1)
    with pytest.raises(DamagedError):
        store.open(name).open(segment)


def test_reading_beyond_the_end_is_damage(store):
    name, segment = make(store)
    memory = np.zeros(10, np.uint8)
    with store.open(name).open(segment) as file, pytest.raises(DamagedError):
        file.read(memory, segment.size - 5)


# Reuse


def test_a_segment_that_is_reused_outlives_the_save_that_wrote_it(store, fsync):
    name, segment = make(store, fsync=fsync)
    source = store.open(name)
    draft = store.begin(None, fsync=fsync)
    draft.reuse(source, segment)
    with draft.source.open(segment) as file:
        assert not source.may_have_changed(segment)
        file.sync()
    draft.commit(b"{}")
    assert store.remove(name, fsync=fsync)
    assert source.lacks(segment)
    assert np.array_equal(content(store.open(draft.path.name), segment), CONTENT)


def test_a_segment_that_was_dropped_stays_where_it_was(store):
    name, segment = make(store)
    draft = store.begin(None, fsync=False)
    draft.reuse(store.open(name), segment)
    draft.drop(segment.file)
    draft.drop(segment.file)
    draft.commit(b"{}")
    assert store.open(draft.path.name).lacks(segment)
    assert np.array_equal(content(store.open(name), segment), CONTENT)


def test_what_is_gone_cannot_be_reused(store):
    name, segment = make(store)
    source = store.open(name)
    store.remove(name, fsync=False)
    draft = store.begin(None, fsync=False)
    with pytest.raises(WriteError):
        draft.reuse(source, segment)


# The rest


def test_what_was_removed_is_gone_and_the_others_stay(store, fsync):
    first, second = make(store)[0], make(store)[0]
    assert store.remove(first, fsync=fsync)
    assert store.names() == [second]
    assert store.remove(first, fsync=fsync)


def test_more_than_there_is_room_is_refused(store):
    draft = store.begin(None, fsync=False)
    draft.require_room(10)
    with pytest.raises(WriteError):
        draft.require_room(1 << 60)


def test_a_sweep_leaves_saves_and_what_is_being_written(store):
    name, draft = make(store)[0], store.begin(None, fsync=False)
    for found in store.names():
        store.sweep(found)
    assert {*store.names()} == {name, draft.path.name}


def test_a_note_of_the_newest_is_no_save(store):
    name = make(store)[0]
    store.point_latest(name)
    store.point_latest(name)
    assert store.names() == [name]
