from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from napari_cmunet.errors import ReadError
from napari_cmunet.io.lazy_frames import FrameCache, LazyFrames


class Decoder:
    """Frames of 4 x 4 bytes that know their number; counts what it decoded."""

    def __init__(self, wait: float = 0) -> None:
        self.calls: list[int] = []
        self.wait = wait

    def __call__(self, index: int) -> np.ndarray:
        self.calls.append(index)
        time.sleep(self.wait)
        return np.full((4, 4), index, np.uint8)


def make(decode, frames: int = 20, most: int = 160) -> LazyFrames:
    return LazyFrames((frames, 4, 4), np.dtype("u1"), decode, FrameCache(most))


def test_what_was_looked_at_last_is_kept():
    decode = Decoder()
    frames = make(decode)
    frames._read_ahead = lambda index: None
    for index in (*range(10), *range(10)):
        assert frames[index][0, 0] == index
    assert decode.calls == list(range(10))  # ten frames of 16 bytes fit
    assert frames[10][0, 0] == 10
    frames[0]
    assert decode.calls[-2:] == [10, 0]


def test_one_who_scrubs_finds_the_next_frames_decoded():
    decode = Decoder()
    frames = make(decode, most=10_000)
    frames[3]
    frames[4]
    deadline = time.monotonic() + 5
    while len(decode.calls) < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(decode.calls) >= set(range(3, 12))
    done = list(decode.calls)
    assert len(done) == len(set(done))


def test_a_background_job_is_not_looked_ahead_for():
    decode = Decoder()
    frames = make(decode)
    worker = threading.Thread(target=lambda: frames[5])
    worker.start()
    worker.join()
    time.sleep(0.05)
    assert decode.calls == [5]


def test_two_who_want_one_frame_wait_for_one_decoding():
    decode = Decoder(wait=0.1)
    frames = make(decode)
    workers = [threading.Thread(target=lambda: frames[7]) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert decode.calls == [7]


@pytest.mark.slow
def test_a_cine_that_is_gone_takes_no_memory():
    cache = FrameCache(10_000)
    frames = LazyFrames((5, 4, 4), np.dtype("u1"), Decoder(), cache)
    np.asarray(frames)
    assert cache._bytes == 80
    del frames
    gc.collect()
    other = LazyFrames((5, 4, 4), np.dtype("u1"), Decoder(), cache)
    assert other._frame(1)[0, 0] == 1
    assert cache._bytes == 16


def test_an_error_is_raised_each_time_it_is_met():
    def decode(index: int) -> np.ndarray:
        raise ReadError("a.dcm", "frame 1 is damaged.")

    frames = make(decode)
    for _ in range(2):
        with pytest.raises(ReadError, match="damaged"):
            frames[0]
