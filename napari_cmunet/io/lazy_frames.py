"""Frames of a cine that are decoded on access."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict, deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import CMUNetError

if TYPE_CHECKING:
    from collections.abc import Callable

CACHE_BYTES = 384 * 2**20
"""Size of the cache of decoded frames, shared by all open cines."""

READ_AHEAD = 8
"""Frames that are decoded ahead of the one on display."""


class FrameCache:
    """Least-recently-used cache of decoded frames of all cines.

    Parameters
    ----------
    most_bytes : int
        Capacity; the latest frame is kept even if it is larger.
    """

    def __init__(self, most_bytes: int = CACHE_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._frames: OrderedDict[tuple[int, int], np.ndarray] = OrderedDict()
        self._discarded: deque[int] = deque()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> np.ndarray | None:
        """Return a frame, or None if it is not cached."""
        with self._lock:
            frame = self._frames.get(key)
            if frame is not None:
                self._frames.move_to_end(key)
            return frame

    def put(self, key: tuple[int, int], frame: np.ndarray) -> None:
        """Add a frame and evict those not used for longest."""
        with self._lock:
            self._evict_discarded()
            old = self._frames.pop(key, None)
            self._bytes += frame.nbytes - (0 if old is None else old.nbytes)
            self._frames[key] = frame
            while self._bytes > self._most and len(self._frames) > 1:
                self._bytes -= self._frames.popitem(last=False)[1].nbytes

    def __contains__(self, key: object) -> bool:
        return key in self._frames

    def discard(self, owner: int) -> None:
        """Evict the frames of one cine when the next frame is added."""
        # Not at once: a finalizer may run anywhere, also inside a call of this cache.
        self._discarded.append(owner)

    def _evict_discarded(self) -> None:
        while self._discarded:
            owner = self._discarded.popleft()
            for key in [k for k in self._frames if k[0] == owner]:
                self._bytes -= self._frames.pop(key).nbytes


_CACHE = FrameCache()
_NUMBERS = itertools.count()
_EXECUTOR = ThreadPoolExecutor(1, thread_name_prefix="napari-cmunet-frames")


class LazyFrames:
    """A read-only array ``(T, Y, X)`` whose frames are decoded on access.

    Implements what napari and NumPy need of an array. Thread-safe.

    Parameters
    ----------
    shape : (T, Y, X)
    decode : callable
        Decodes the frame at an index, ``(Y, X)``; raises CMUNetError.
    cache : FrameCache, optional
        Shared by all cines by default.
    """

    ndim = 3

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype,
        decode: Callable[[int], np.ndarray],
        cache: FrameCache = _CACHE,
    ) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        self._decode, self._cache = decode, cache
        self._number = next(_NUMBERS)
        self._last = 0
        self._busy: dict[int, threading.Lock] = {}

    @property
    def size(self) -> int:
        """Number of pixels."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames when decoded."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __del__(self) -> None:
        self._cache.discard(self._number)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("the frames are not in memory")
        frames = np.empty(self.shape, self.dtype if dtype is None else dtype)
        for index in range(len(self)):
            frames[index] = self._frame(index)
        return frames

    def __getitem__(self, key: Any) -> np.ndarray:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        if isinstance(first, (int, np.integer)):
            frame = self._frame(self._index(int(first)))
            self._read_ahead(int(first))
            return frame[tuple(rest)]
        if isinstance(first, slice):
            indices = list(range(*first.indices(len(self))))
        else:
            wanted = np.arange(len(self))[first]
            indices = [int(i) for i in np.atleast_1d(wanted)]
        if not indices:
            return np.empty((0, *self.shape[1:]), self.dtype)[(slice(None), *rest)]
        return np.stack([self._frame(i) for i in indices])[(slice(None), *rest)]

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> LazyFrames:
        """Return frames of the same type with a function applied to each."""
        return LazyFrames(
            self.shape, self.dtype, lambda i: function(self._frame(i)), self._cache
        )

    def _index(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index % len(self)

    def _frame(self, index: int) -> np.ndarray:
        key = (self._number, index)
        frame = self._cache.get(key)
        if frame is not None:
            return frame
        # Another thread may be decoding this frame: wait for it.
        with self._busy.setdefault(index, threading.Lock()):
            frame = self._cache.get(key)
            if frame is None:
                frame = self._decode(index)
                frame.setflags(write=False)  # it is cached for others
                self._cache.put(key, frame)
            return frame

    def _read_ahead(self, index: int) -> None:
        """Decode the next frames for the main thread, not for background jobs."""
        if threading.current_thread() is not threading.main_thread():
            return
        step = -1 if index < self._last else 1
        self._last = index
        if 0 <= index + step < len(self):
            try:
                _EXECUTOR.submit(self._decode_ahead, index, step)
            except RuntimeError:  # the interpreter is shutting down
                return

    def _decode_ahead(self, start: int, step: int) -> None:
        for index in range(start + step, start + step * (READ_AHEAD + 1), step):
            if self._last != start or not 0 <= index < len(self):
                return
            if (self._number, index) not in self._cache:
                try:
                    self._frame(index)
                except CMUNetError:  # reported when it is displayed
                    return
