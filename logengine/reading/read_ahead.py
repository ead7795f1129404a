"""Reads ahead in threads while the caller uses what was read before.

Reading, hashing and decompressing release the GIL, so two threads keep two cores busy.
"""

import os
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from logengine.errors import LogEngineError

_THREADS = 2
# Limits of what is read and not taken yet. The last items read may exceed the bytes.
_ITEMS_MAX = 8
_BYTES_MAX = 32 * 1024 * 1024
# For smaller items, the handover between threads costs more time than it saves.
_BYTES_WORTH_A_THREAD = 512 * 1024

Item = TypeVar("Item")


def begun_before_fork() -> LogEngineError:
    """The error of a loop that continues in a forked process: its threads are in the parent."""
    return LogEngineError("this loop was started before its process forked; start another one here")


class ReadAhead(Generic[Item]):
    """Returns `read(key)` for keys of an ascending list, taken in that order.

    `size` returns the number of bytes of an item. Nothing is read ahead until an item was large
    enough to be worth it. `close` drops everything and waits for nothing.
    """

    def __init__(
        self, keys: Sequence[int], read: Callable[[int], Item], size: Callable[[Item], int]
    ) -> None:
        self._keys = keys
        self._read = read
        self._size = size
        self._process = os.getpid()
        self._changed = threading.Condition()
        self._started = False
        self._closed = False
        # Indices of the keys to be taken and to be read next.
        self._to_take = 0
        self._to_read = 0
        self._items: dict[int, Item | Exception] = {}
        self._bytes = 0

    def take(self, key: int) -> Item:
        """The item of `key`; drops items before it. Raises what `read` raises.

        A key that is not in the list, or was passed, is read by the caller's thread. Raises
        `LogEngineError` in a process that was forked meanwhile.
        """
        if os.getpid() != self._process:
            raise begun_before_fork()
        index = bisect_left(self._keys, key)
        is_ahead = self._to_take <= index < len(self._keys) and self._keys[index] == key
        if self._started and is_ahead:
            return self._wait_for(index)
        item = self._read(key)
        if is_ahead:
            self._to_take = self._to_read = index + 1
            if self._to_read < len(self._keys) and self._size(item) >= _BYTES_WORTH_A_THREAD:
                self._start()
        return item

    def close(self) -> None:
        """Ends each thread after the item it is reading."""
        if os.getpid() != self._process:
            return  # the threads are in the parent, and one of them may have held the lock
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()

    def _start(self) -> None:
        self._started = True
        for _ in range(_THREADS):
            threading.Thread(target=self._read_on, daemon=True).start()

    def _wait_for(self, index: int) -> Item:
        with self._changed:
            for passed in range(self._to_take, min(index, self._to_read)):
                self._drop(passed)
            self._to_take = index
            self._to_read = max(self._to_read, index)
            self._changed.notify_all()
            self._changed.wait_for(lambda: index in self._items)
            item = self._drop(index)
            self._to_take = index + 1
            self._changed.notify_all()
        if isinstance(item, Exception):
            raise item
        assert item is not None
        return item

    def _drop(self, index: int) -> Item | Exception | None:
        item = self._items.pop(index, None)
        self._bytes -= self._bytes_of(item)
        return item

    def _bytes_of(self, item: Item | Exception | None) -> int:
        return 0 if item is None or isinstance(item, Exception) else self._size(item)

    def _has_room(self) -> bool:
        return (
            self._to_read < len(self._keys)
            and self._to_read < self._to_take + _ITEMS_MAX
            and self._bytes < _BYTES_MAX
        )

    def _read_on(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._closed or self._has_room())
                if self._closed:
                    return
                index = self._to_read
                self._to_read += 1
            try:
                item: Item | Exception = self._read(self._keys[index])
            except Exception as error:  # noqa: BLE001 - raised by `take`
                item = error
            with self._changed:
                if index >= self._to_take and not self._closed:
                    self._items[index] = item
                    self._bytes += self._bytes_of(item)
                    self._changed.notify_all()
            del item  # otherwise it is kept in memory while this thread waits
