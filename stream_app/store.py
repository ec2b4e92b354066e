"""Where a worker keeps the bytes of its tables: in memory, or in RocksDB on its own disk.

Either is a copy of the changelog up to ``position``, so it may be lost at any time. What is on disk spares a worker
that comes back the reading of all but the changelog's tail.
"""

import logging
import shutil
from collections.abc import ItemsView, Iterable, Iterator, MutableMapping
from pathlib import Path
from typing import Any, Literal, Protocol

import rocksdict

from core.aggregate import TableWrite
from stream_app.errors import SetupError

log = logging.getLogger(__name__)

Contents = MutableMapping[bytes, bytes]


class StoreFailed(Exception):
    """The local disk did not take a write: the worker must not go on as if it had."""


class Store(Protocol):
    """One partition of a table. ``position`` is the changelog offset up to which it is a copy, −1 for none."""

    contents: Contents
    position: int

    def put(self, writes: Iterable[TableWrite], position: int) -> None:
        """Take writes that are durable in the changelog up to ``position``."""

    def clear(self) -> None:
        """Forget all."""

    def close(self) -> None:
        """Let go of it, keeping what is on disk."""


class MemoryStore:
    """A dictionary."""

    def __init__(self) -> None:
        self.contents: Contents = {}
        self.position = -1

    def put(self, writes: Iterable[TableWrite], position: int) -> None:
        """Take writes that are durable in the changelog up to ``position``."""
        held = self.contents
        for key, value in writes:
            if value is None:
                held.pop(key, None)
            else:
                held[key] = value
        self.position = max(self.position, position)

    def clear(self) -> None:
        """Forget all."""
        self.contents.clear()
        self.position = -1

    def close(self) -> None:
        """Nothing is on disk."""


_POSITION = b"\x00position"
"""No key of a table: those are msgpack arrays."""


class _OnDisk(MutableMapping[bytes, bytes]):
    """What a RocksDB database holds, without the store's own entry."""

    def __init__(self, database: Any) -> None:
        self._database = database

    def __getitem__(self, key: bytes) -> bytes:
        return bytes(self._database[key])

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self._database[key] = value

    def __delitem__(self, key: bytes) -> None:
        del self._database[key]

    def __iter__(self) -> Iterator[bytes]:
        return (key for key in self._database.keys() if key != _POSITION)  # noqa: SIM118 - not a dict

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def items(self) -> ItemsView[bytes, bytes]:
        return _Items(self)


class _Items(ItemsView[bytes, bytes]):
    """One pass over the database, where the default would ask for each key."""

    _mapping: _OnDisk

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return ((key, value) for key, value in self._mapping._database.items() if key != _POSITION)


class RocksStore:
    """A RocksDB database in a folder of its own. Values and position are written together.

    One that cannot be opened is damaged, and is begun anew from the changelog. Raises ``SetupError`` when another
    process holds it, ``StoreFailed`` when the disk does not take a write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._open()
        except SetupError:
            raise
        except Exception as error:  # noqa: BLE001 - RocksDB has one kind of error for all that can be wrong
            log.warning("%s is damaged and is built again from the changelog: %s", folder, error)
            self._remove()
            self._open()

    def _open(self) -> None:
        options = rocksdict.Options(raw_mode=True)
        options.set_max_open_files(256)
        try:
            self._database = rocksdict.Rdict(str(self._folder), options=options)
        except Exception as error:
            if "/LOCK" in str(error):
                raise SetupError(
                    f"{self._folder} is in use by another process: give each worker its own PARALLAX_DATADIR"
                ) from None
            raise
        try:
            held = self._database.get(_POSITION)
            # Damage shows where it is read, and is to show now.
            scan = self._database.iter()
            scan.seek_to_first()
            while scan.valid():
                scan.next()
            scan.status()
        except Exception:
            self._database.close()
            raise
        self.position = -1 if held is None else int.from_bytes(held, "big", signed=True)
        self.contents: Contents = _OnDisk(self._database)

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def put(self, writes: Iterable[TableWrite], position: int) -> None:
        """Take writes that are durable in the changelog up to ``position``."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in writes:
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        self.position = max(self.position, position)
        batch.put(_POSITION, self.position.to_bytes(8, "big", signed=True))
        try:
            self._database.write(batch)
        except Exception as error:
            raise StoreFailed(f"{self._folder} took no write: {error}") from error

    def clear(self) -> None:
        """Forget all."""
        self._database.close()
        self._remove()
        self._open()

    def close(self) -> None:
        """Let go of it, keeping what is on disk."""
        self._database.close()


def store_of(kind: Literal["memory", "rocksdb"], folder: Path) -> Store:
    """A partition's store. ``folder`` is for what is kept on disk."""
    return MemoryStore() if kind == "memory" else RocksStore(folder)
