"""What a worker keeps on its own disk: a copy that may be damaged, held by another, or find no room."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.aggregate import TableWrite
from stream_app.errors import SetupError
from stream_app.store import MemoryStore, RocksStore
from tests.live import ROOT

KEYS = st.sampled_from([b"\x94a", b"\x94b", b"\x94c"])
CHECKPOINTS = st.lists(st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=8)), max_size=5), max_size=6)


@settings(max_examples=30, deadline=None)
@given(CHECKPOINTS)
def test_what_is_on_disk_is_what_is_in_memory(
    tmp_path_factory: pytest.TempPathFactory, checkpoints: list[list[tuple[bytes, bytes | None]]]
) -> None:
    memory, disk = MemoryStore(), RocksStore(tmp_path_factory.mktemp("store") / "db")
    for position, writes in enumerate(checkpoints):
        for store in (memory, disk):
            store.put([TableWrite(*write) for write in writes], position)
    assert dict(disk.contents.items()) == memory.contents
    assert sorted(disk.contents) == sorted(memory.contents)
    assert disk.position == memory.position
    disk.close()
    again = RocksStore(disk._folder)
    assert (dict(again.contents.items()), again.position) == (memory.contents, memory.position)
    again.clear()
    assert (dict(again.contents.items()), again.position) == ({}, -1)
    again.close()


@pytest.mark.parametrize("damage", ["truncate", "garbage", "delete"])
@pytest.mark.parametrize("suffix", ["MANIFEST*", "*.sst", "CURRENT"])
def test_a_damaged_store_is_never_believed(tmp_path: Path, damage: str, suffix: str) -> None:
    """Either it is as it was, or it is begun anew and knows that it holds nothing, or it says so when it is read."""
    folder = tmp_path / "db"
    store = RocksStore(folder)
    whole = {b"\x94%05d" % number: b"v" * 100 for number in range(5_000)}
    store.put([TableWrite(key, value) for key, value in whole.items()], 77)
    store._database.flush()
    store.close()
    hit = list(folder.glob(suffix))
    assert hit, f"RocksDB keeps no {suffix}"
    for file in hit:
        if damage == "delete":
            file.unlink()
        else:
            content = file.read_bytes()
            half = len(content) // 2
            file.write_bytes(content[:half] if damage == "truncate" else b"\xff" * half + content[half:])
    again = RocksStore(folder)
    held = dict(again.contents.items())
    assert (held, again.position) in ((whole, 77), ({}, -1))
    again.close()


def test_two_processes_cannot_hold_one_store(tmp_path: Path) -> None:
    store = RocksStore(tmp_path / "db")
    script = (
        f"from pathlib import Path\nfrom stream_app.store import RocksStore\nRocksStore(Path({str(tmp_path / 'db')!r}))"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert SetupError.__name__ in run.stderr
    assert "PARALLAX_DATADIR" in run.stderr
    store.close()


def test_a_full_disk_fails_loudly(tmp_path: Path) -> None:
    """A write that the disk does not take is an error at once; what was taken before is still there."""
    script = f"""
        import resource, signal
        from pathlib import Path
        from core.aggregate import TableWrite
        from stream_app.store import RocksStore, StoreFailed
        store = RocksStore(Path({str(tmp_path / "db")!r}))
        store.put([TableWrite(b"a", b"1")], 1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            for number in range(100):
                store.put([TableWrite(b"k%d" % number, bytes(20_000))], 2 + number)
        except StoreFailed as error:
            assert "took no write" in str(error), error
            assert store.contents[b"a"] == b"1"
            print("failed loudly")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "failed loudly" in run.stdout, run.stderr[-2000:]
