"""Large values in shared memory: written by one process, read by others without a copy, reused when free."""

import gc
import hashlib
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from waiting import wait_for

from rlflow.engine.exceptions import ObjectLostError, ObjectStoreFullError
from rlflow.engine.messages import Shm
from rlflow.engine.serialization import dumps
from rlflow.engine.store.allocator import ALIGNMENT
from rlflow.engine.store.arena import FIRST_SEGMENT, Arena
from rlflow.engine.store.reader import SegmentReader
from rlflow.engine.store.segment import Folders
from rlflow.engine.store.warming import SHARE, warm_up

CAPACITY = 16 << 20


@pytest.fixture
def folders(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return Folders(tmp_path, tmp_path_factory.mktemp("disk"))


@pytest.fixture
def arena(folders: Folders) -> Iterator[Arena]:
    arena = Arena(folders, "w1", CAPACITY)
    yield arena
    arena.close()


@pytest.fixture
def unpinned() -> list[bytes]:
    return []


@pytest.fixture
def reader(folders: Folders, unpinned: list[bytes]) -> Iterator[SegmentReader]:
    reader = SegmentReader(folders, unpinned.append)
    yield reader
    gc.collect()
    reader.close()


def write(arena: Arena, value: object) -> Shm:
    written = arena.write(dumps(value), [])
    assert written is not None, "no room"
    return written


def has_no_room(arena: Arena, value: object) -> bool:
    return arena.write(dumps(value), []) is None


VALUES = st.recursive(
    st.one_of(
        st.tuples(st.sampled_from(["u1", "i8", "f4", "c16", "?"]), st.lists(st.integers(0, 9), max_size=3)).map(
            lambda drawn: np.arange(int(np.prod(drawn[1]))).astype(drawn[0]).reshape(drawn[1])
        ),
        st.binary(max_size=200),
        st.text(max_size=10),
    ),
    lambda parts: st.lists(parts, max_size=4) | st.dictionaries(st.text(max_size=3), parts, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(VALUES)
def test_what_is_read_is_what_was_written(arena, reader, unpinned, value):
    unpinned.clear()
    written = write(arena, value)
    assert written.offset % ALIGNMENT == 0
    loaded = reader.load(b"id", written)
    assert pickle.dumps(loaded) == pickle.dumps(value) or repr(loaded) == repr(value)
    del loaded
    assert unpinned == [b"id"]
    arena.free(written.segment, written.offset, written.generation)


def test_another_process_reads_the_same_bytes(arena, tmp_path):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, size, dtype=np.uint8) for size in (1, 63, 64, 100_000, 3_000_000)]
    written = write(arena, arrays)
    program = (
        "import hashlib, pickle, sys\n"
        "from pathlib import Path\n"
        "from rlflow.engine.messages import Shm\n"
        "from rlflow.engine.store.reader import SegmentReader\n"
        "from rlflow.engine.store.segment import Folders\n"
        "reader = SegmentReader(Folders(Path(sys.argv[1]), Path(sys.argv[1])), lambda _: None)\n"
        "sizes = [int(size) for size in sys.argv[4].split(',')]\n"
        "value = Shm(sys.argv[2], int(sys.argv[3]), sizes, [], int(sys.argv[5]))\n"
        "arrays = reader.load(b'id', value)\n"
        "print(*[hashlib.sha256(array).hexdigest() for array in arrays])\n"
    )
    sizes = ",".join(map(str, written.sizes))
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path, written.segment, str(written.offset), sizes,
         str(written.generation)],
        capture_output=True, text=True, check=True,
    )
    assert done.stdout.split() == [*[hashlib.sha256(array.tobytes()).hexdigest() for array in arrays]]


def test_arrays_are_read_only_and_aligned(arena, reader):
    loaded = reader.load(b"id", write(arena, {"a": np.arange(1000), "b": np.ones(3, np.float32)}))
    for array in loaded.values():
        assert array.ctypes.data % ALIGNMENT == 0
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 7
        with pytest.raises(ValueError, match="WRITEABLE"):
            array.flags.writeable = True


def test_nothing_is_copied(arena, reader):
    written = write(arena, np.zeros(1000, np.uint8))
    first, second = reader.load(b"id", written), reader.load(b"id", written)
    assert np.shares_memory(first, second)


def test_the_pin_ends_once_with_the_last_array(arena, reader, unpinned):
    loaded = reader.load(b"id", write(arena, [np.arange(1000), np.arange(2000)]))
    view = loaded[1][10:20].reshape(2, 5).T
    whole = memoryview(loaded[0])
    del loaded
    assert unpinned == []
    del whole
    assert unpinned == []
    assert view.sum() == sum(range(10, 20))
    del view
    assert unpinned == [b"id"]


def test_each_load_has_a_pin_of_its_own(arena, reader, unpinned):
    written = write(arena, np.arange(1000))
    first, second = reader.load(b"id", written), reader.load(b"id", written)
    del first
    assert unpinned == [b"id"]
    del second
    assert unpinned == [b"id", b"id"]


def test_a_value_without_buffers_is_copied_and_not_pinned(arena, reader, unpinned):
    loaded = reader.load(b"id", write(arena, "x" * 100_000))
    assert unpinned == [b"id"]
    assert loaded == "x" * 100_000


def test_a_value_that_cannot_be_loaded_leaves_no_pin(arena, reader, unpinned):
    data = dumps(np.arange(1000))
    data.data = b"no pickle"
    with pytest.raises(pickle.UnpicklingError):
        reader.load(b"id", arena.write(data, []))
    gc.collect()
    assert unpinned == [b"id"]


def test_arrays_outlive_the_reader(arena, folders, unpinned):
    reader = SegmentReader(folders, unpinned.append)
    loaded = reader.load(b"id", write(arena, np.arange(1000)))
    reader.close()
    assert loaded.sum() == 499_500
    del loaded
    assert unpinned == []  # nobody is there to be told


def test_lost_memory_is_an_error_that_names_it(reader):
    with pytest.raises(ObjectLostError, match="w7-0"):
        reader.load(b"id", Shm("w7-0", 0, [10, 10]))


def test_a_freed_block_is_reused(arena):
    first = write(arena, np.zeros(1 << 20, np.uint8))
    write(arena, np.zeros(1 << 20, np.uint8))
    arena.free(first.segment, first.offset, first.generation)
    again = write(arena, np.ones(1 << 20, np.uint8))
    assert (again.segment, again.offset) == (first.segment, first.offset)


def test_an_endless_stream_fits_while_it_is_freed(arena, tmp_path):
    for i in range(100):
        written = write(arena, np.full(3 << 20, i, np.uint8))
        arena.free(written.segment, written.offset, written.generation)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == FIRST_SEGMENT


def test_a_store_that_memory_and_disk_have_no_room_for_says_how_large_it_is_and_what_helps(arena, folders):
    folders.disk.rmdir()
    with pytest.raises(ObjectStoreFullError) as caught:
        arena.write_to_disk(dumps(np.zeros(12_000_000, np.uint8)), [])
    text = str(caught.value)
    assert "12.0 MB" in text and "17 MB" in text and "object_store_memory" in text and "engine.init()" in text
    assert str(folders.disk) in text and "object_spilling_directory" in text
    assert arena.blocks() == 0


def test_a_full_disk_is_an_error_and_takes_no_room():
    """With a limit on the size of files in place of a full disk: both are errors when room is reserved."""
    program = (
        "import resource, signal, sys, tempfile, numpy as np\n"
        "from pathlib import Path\n"
        "from rlflow.engine.exceptions import ObjectStoreFullError\n"
        "from rlflow.engine.serialization import dumps\n"
        "from rlflow.engine.store.arena import Arena\n"
        "from rlflow.engine.store.segment import Folders\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9 << 20, 9 << 20))\n"
        "with tempfile.TemporaryDirectory() as folder:\n"
        "    arena = Arena(Folders(Path(folder), Path(folder)), 'w1', 1 << 20)\n"
        "    arena.write_to_disk(dumps(np.zeros(4 << 20, np.uint8)), [])\n"
        "    try:\n"
        "        arena.write_to_disk(dumps(np.zeros(20 << 20, np.uint8)), [])\n"
        "    except ObjectStoreFullError:\n"
        "        print(len(list(Path(folder).iterdir())), arena.blocks())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1"]


def test_what_memory_has_no_room_for_is_read_from_disk(arena, reader, folders, unpinned):
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 256, size, dtype=np.uint8) for size in (100_000, 20_000_000, 3_000_001, 65)]
    written = [arena.write_to_disk(dumps(array), []) for array in arrays]
    loaded = [reader.load(b"id", value) for value in written]
    assert all(np.array_equal(*pair) for pair in zip(loaded, arrays, strict=True))
    assert not any(folders.memory.iterdir())
    for value in written:
        arena.free(value.segment, value.offset, value.generation)
    assert not any(folders.disk.iterdir()), "files go with their last value"
    assert all(np.array_equal(*pair) for pair in zip(loaded, arrays, strict=True)), "mappings stay valid"
    loaded.clear()
    assert unpinned == [b"id"] * 4


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_late_reader_of_a_freed_block_is_caught(arena, reader, unpinned, on_disk):
    def put(value: object) -> Shm:
        return arena.write_to_disk(dumps(value), []) if on_disk else write(arena, value)

    neighbour = put(np.zeros(1000))
    old = put(np.zeros(1000))
    assert reader.load(b"id", old).sum() == 0
    unpinned.clear()
    arena.free(old.segment, old.offset, old.generation)
    with pytest.raises(ObjectLostError, match="freed"):
        reader.load(b"old", old)
    new = put(np.ones(1000))
    assert (new.segment, new.offset) == (old.segment, old.offset)
    with pytest.raises(ObjectLostError, match="freed"):
        reader.load(b"old", old)
    assert reader.load(b"id", new).sum() == 1000
    assert reader.load(b"id", neighbour).sum() == 0
    assert unpinned[:2] == [b"old", b"old"], "a load that failed holds nothing"


def test_pages_given_back_are_taken_again(arena, reader, folders):
    kept = write(arena, np.full(3_000_000, 7, np.uint8))
    dropped = write(arena, np.zeros(9_000_000, np.uint8))
    arena.free(dropped.segment, dropped.offset, dropped.generation)
    arena.give_back()
    taken = sum(path.stat().st_blocks * 512 for path in folders.memory.iterdir())
    assert taken < 3_100_000
    again = write(arena, np.arange(9_000_000, dtype=np.uint8))
    assert (again.segment, again.offset) == (dropped.segment, dropped.offset)
    assert np.array_equal(reader.load(b"id", again), np.arange(9_000_000, dtype=np.uint8))
    assert (reader.load(b"id", kept) == 7).all()


def test_a_store_is_full_when_its_values_fill_it(arena):
    kept = [write(arena, np.zeros(5 << 20, np.uint8)) for _ in range(2)]
    assert has_no_room(arena, np.zeros(12_000_000, np.uint8))
    write(arena, np.zeros(1 << 20, np.uint8))  # a smaller one still fits
    for block in kept:
        arena.free(block.segment, block.offset, block.generation)
    write(arena, np.zeros(5 << 20, np.uint8))


def test_the_capacity_is_shared_by_all_processes(arena, folders):
    other = Arena(folders, "w2", CAPACITY)
    write(arena, np.zeros(10 << 20, np.uint8))
    assert has_no_room(other, np.zeros(10 << 20, np.uint8))
    write(other, np.zeros(2 << 20, np.uint8))
    other.close()


def test_segments_may_vanish_while_another_grows(folders, tmp_path):
    """The node removes those of dead processes at any time."""
    stop = threading.Event()
    failures: list[BaseException] = []

    def come_and_go() -> None:
        path = tmp_path / "w9-0"
        while not stop.is_set():
            path.touch()
            path.unlink()

    thread = threading.Thread(target=come_and_go)
    thread.start()
    try:
        for i in range(300):
            other = Arena(folders, f"x{i}", 1 << 40)
            written = write(other, np.zeros(10, np.uint8))
            other.close()
            os.unlink(tmp_path / written.segment)
    except FileNotFoundError as error:
        failures.append(error)
    finally:
        stop.set()
        thread.join()
    assert not failures


def test_files_are_private(arena, tmp_path):
    write(arena, np.zeros(10, np.uint8))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_mode & 0o777 == 0o600


def test_threads_get_blocks_of_their_own(arena):
    blocks: list[Shm] = []

    def fill() -> None:
        for _ in range(50):
            blocks.append(write(arena, np.zeros(1000, np.uint8)))

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({(block.segment, block.offset) for block in blocks}) == 200


def test_pages_are_taken_ahead_of_need(arena, reader, folders):
    warm_up(arena, SHARE * (8 << 20))
    wait_for(lambda: taken(folders) == 8 << 20, "pages taken")
    arena_thread_ends()
    values = [np.full(1_000_000, i, np.uint8) for i in range(8)]
    written = [write(arena, value) for value in values]
    assert len({value.segment for value in written}) == 1
    assert taken(folders) == 8 << 20, "and used"
    assert all((reader.load(b"id", place) == value).all() for place, value in zip(written, values, strict=True))


def test_pages_taken_ahead_of_need_are_given_back(arena, folders):
    warm_up(arena, SHARE * (8 << 20))
    wait_for(lambda: taken(folders) == 8 << 20, "pages taken")
    arena_thread_ends()
    arena.give_back()
    assert taken(folders) == 0
    segment = arena.first_segment(1 << 20)
    assert segment is None, "no more is taken when somebody lacked memory"


def test_values_are_written_while_pages_are_taken(arena, reader, folders):
    warm_up(arena, SHARE * (12 << 20))
    values = [np.full(500_000, i, np.uint8) for i in range(20)]
    written = [write(arena, value) for value in values]
    arena_thread_ends()
    assert all((reader.load(b"id", place) == value).all() for place, value in zip(written, values, strict=True))


def test_no_pages_are_taken_when_the_session_is_gone(arena, folders):
    """The thread may begin at the end of a program that lasts a moment only."""
    shutil.rmtree(folders.memory)
    assert arena.first_segment(1 << 20) is None


def test_no_pages_are_taken_when_the_arena_is_closed(arena, folders):
    arena.close()
    assert arena.first_segment(1 << 20) is None
    assert not list(folders.memory.iterdir())


def taken(folders: Folders) -> int:
    return sum(path.stat().st_blocks * 512 for path in folders.memory.iterdir())


def arena_thread_ends() -> None:
    wait_for(lambda: not any(thread.name == "rlflow-pages" for thread in threading.enumerate()), "the thread ends")


BOTH_SIDES = """
import os, sys
from pathlib import Path
import numpy as np
from rlflow.engine.serialization import dumps
from rlflow.engine.store.arena import Arena
from rlflow.engine.store.reader import SegmentReader, StaleAddress
from rlflow.engine.store.segment import Folders, set_generation
folder = Path(sys.argv[1])
folders = Folders(folder, folder)
arena, reader = Arena(folders, "w1", 64 << 20), SegmentReader(folders, lambda _: None)
def put(size, value=1):
    return arena.write(dumps(np.full(size, value, np.uint8)), [])
def is_stale(value):
    try:
        reader.load(b"id", value)
    except StaleAddress:
        return True
    return False
"""


def run_both_sides(program: str, folder: object, prefix: tuple[str, ...] = ()) -> list[str]:
    """In a process of its own, which a SIGBUS may kill."""
    done = subprocess.run(
        [*prefix, sys.executable, "-c", BOTH_SIDES + program, str(folder)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, f"{done.returncode}\n{done.stderr}"
    return done.stdout.split()


def test_a_file_that_somebody_has_cut_off_kills_neither_reader_nor_writer(tmp_path):
    program = (
        "first, second, third = put(100_000), put(100_000), put(100_000)\n"
        "assert not is_stale(first)\n"
        "os.truncate(folder / first.segment, 8192)\n"
        "print(is_stale(first), is_stale(second))\n"
        "arena.free(first.segment, first.offset, first.generation)\n"
        "arena.free(second.segment, second.offset, second.generation)\n"
        "print(set_generation(folder / third.segment, third.offset, 0), os.path.getsize(folder / third.segment))\n"
        "again = put(100_000)\n"
        "print(again.segment == first.segment, is_stale(again))\n"
    )
    assert run_both_sides(program, tmp_path) == ["True", "True", "False", "8192", "False", "False"]


def test_a_late_reader_in_a_full_memory_is_caught(tmp_path):
    """The page with the block's header has been given back, and to look at it would take a new one."""
    program = (
        "small, large = put(100_000), put(3_000_000)\n"
        "assert not is_stale(small) and not is_stale(large)\n"
        "for value in (small, large):\n"
        "    arena.free(value.segment, value.offset, value.generation)\n"
        "arena.give_back()\n"
        "with open(folder / 'rest', 'wb') as rest:\n"
        "    try:\n"
        "        while True:\n"
        "            rest.write(bytes(1 << 16))\n"
        "            rest.flush()\n"
        "    except OSError:\n"
        "        os.ftruncate(rest.fileno(), rest.seek(0, 2))\n"
        "        print('full')\n"
        "        print(is_stale(small), is_stale(large), put(1_000_000))\n"
        "        os._exit(0 if not sys.stdout.flush() else 1)\n"
    )
    mounted = f"mount -t tmpfs -o size=16m none {tmp_path} && exec \"$@\""
    prefix = ("unshare", "--mount", "sh", "-c", mounted, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("may not mount a small file system here")
    assert run_both_sides(program, tmp_path, prefix) == ["full", "True", "True", "None"]
