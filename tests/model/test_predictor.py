"""Prediction: one mask however it is computed, and an answer when memory is short."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from napari_cmunet.errors import DeviceError
from napari_cmunet.model import predictor as predict_module
from napari_cmunet.model.network import CMUNet, artery_logit
from napari_cmunet.model.postprocess import suppress_small_components
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.preprocess import prepare, restore
from napari_cmunet.model.registry import LoadedModel, load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training.evaluation.metrics import dice
from tests.model.precisions import BFLOAT16

if TYPE_CHECKING:
    from collections.abc import Iterator

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_model) -> LoadedModel:
    return load_model(tiny_model)


@pytest.fixture
def predictor(model) -> Predictor:
    return Predictor(model, CPU, reduced_precision=False)


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[np.ndarray, np.ndarray]]:
    """Five phantom frames and their masks."""
    return [make_frame(PhantomConfig(size=128, seed=seed)) for seed in (1, 2, 4, 7, 8)]


@pytest.fixture(scope="module")
def frames(phantoms) -> np.ndarray:
    """The frames (5, 128, 128), uint8."""
    return np.stack([frame for frame, _ in phantoms])


@pytest.fixture(scope="module")
def truth(phantoms) -> np.ndarray:
    """Their masks (5, 128, 128)."""
    return np.stack([mask for _, mask in phantoms])


# What is predicted


@pytest.mark.slow
def test_the_tiny_model_finds_the_phantoms_arteries(predictor, frames, truth):
    probability = predictor.predict(frames[0])
    assert probability.dtype == np.uint8
    assert probability.shape == frames[0].shape
    assert dice(mask_at(probability, 0.5), truth[0]) > 0.5


def test_prediction_is_network_specks_and_geometry_and_nothing_else(
    predictor, model, frames
):
    with torch.inference_mode():
        x, geo = prepare(frames[0], model.card.preprocessing)
        logit = restore(suppress_small_components(artery_logit(model.network(x))), geo)
        expected = torch.sigmoid(logit)[0, 0].numpy() * 255
    found = predictor.predict(frames[0]).astype(float)
    assert np.abs(found - expected).max() < 0.51


@pytest.mark.parametrize("dtype", [BFLOAT16, torch.float16])
def test_reduced_precision_does_not_change_the_mask(
    model, predictor, frames, truth, monkeypatch, dtype
):
    monkeypatch.setattr(predict_module, "inference_dtype", lambda _: dtype)
    reduced = Predictor(model, CPU)
    assert reduced.dtype == dtype
    assert predictor.dtype == torch.float32
    changed = []
    for frame, artery in zip(frames, truth, strict=True):
        exact = mask_at(predictor.predict(frame), 0.5)
        other = mask_at(reduced.predict(frame), 0.5)
        assert abs(dice(exact, artery) - dice(other, artery)) <= 0.002
        changed.append(1 - dice(exact, other))
    assert np.mean(changed) < 0.004


@pytest.mark.parametrize(
    ("dtype", "gain", "offset"),
    [
        ("u2", 16, 0),
        (">u2", 1, 3000),
        ("i2", 1, -100),
        ("i4", 1000, -100_000),
        ("f4", 1 / 255, 0),
        ("f8", 1, 1e6),
    ],
)
def test_any_type_and_scale_gives_the_same(predictor, frames, dtype, gain, offset):
    other = (frames[0].astype(np.float64) * gain + offset).astype(dtype)
    expected = predictor.predict(frames[0])
    assert np.abs(predictor.predict(other) - expected.astype(int)).max() <= 1


def test_bool_constant_and_broken_frames_are_predicted(predictor):
    for frame in (
        np.zeros((40, 50), bool),
        np.eye(64, dtype=bool),
        np.full((33, 64), 7, np.uint16),
        np.full((64, 64), np.nan),
    ):
        assert predictor.predict(frame).shape == frame.shape


@pytest.mark.parametrize("shape", [(33, 200), (200, 33), (64, 64), (300, 177)])
def test_own_grid(predictor, shape):
    frame = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    assert predictor.predict(frame).shape == shape


# Several frames


@pytest.fixture(params=[1, 2, 3])
def threads(request) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    assert torch.get_num_threads() == request.param
    torch.set_num_threads(before)


def test_predict_and_predict_frames_agree_bit_for_bit(predictor, frames, threads):
    found = list(predictor.predict_frames(frames))
    assert [one.index for one in found] == [0, 1, 2, 3, 4]
    for one in found:
        assert np.array_equal(one.probability, predictor.predict(frames[one.index]))
    assert list(predictor.predict_frames(frames[:0])) == []


def test_a_frame_that_fails_beside_others_is_predicted_alone(
    model, predictor, frames, threads
):
    short = Predictor(model, CPU, reduced_precision=False)
    real, beside = short._network.forward, []

    def fails_beside(x):
        if threading.current_thread() is not threading.main_thread():
            beside.append(x)
            raise RuntimeError("not enough memory")
        return real(x)

    short._network.forward = fails_beside
    for one in short.predict_frames(frames):
        assert np.array_equal(one.probability, predictor.predict(frames[one.index]))
    assert bool(beside) == (threads > 1)
    assert not short.notices


def test_frames_are_taken_when_they_are_needed(predictor, frames):
    taken = []

    class Lazy:
        def __len__(self):
            return len(frames)

        def __getitem__(self, index):
            taken.append(index)
            return frames[index]

    prediction = predictor.predict_frames(Lazy())
    next(prediction)
    assert taken == [0]


@pytest.mark.parametrize("batch", [2, 3, 8])
def test_what_else_is_in_the_batch_does_not_matter(model, predictor, frames, batch):
    batched = Predictor(model, CPU, reduced_precision=False)
    batched.batch = batch
    mixed = frames.astype(np.float64)
    mixed[1] = mixed[1] * 1e6 + 1e9
    mixed[3] = np.nan
    for one in batched.predict_frames(mixed):
        alone = predictor.predict(mixed[one.index]).astype(int)
        assert np.abs(one.probability - alone).max() <= 1


def test_the_first_frame_comes_alone(model, frames):
    """Somebody is looking at it."""
    predictor = Predictor(model, CPU)
    predictor.batch = 4
    sizes = []
    real = predictor._run
    predictor._run = lambda f, *rest: sizes.append(len(f)) or real(f, *rest)
    list(predictor.predict_frames(frames))
    assert sizes == [1, 4]


# Memory


def limited(predictor: Predictor, monkeypatch, fits, error=None) -> list[tuple]:
    """Make the network fail for inputs that do not fit; returns the sizes it saw."""
    seen = []
    real = Predictor._place

    def limit() -> None:
        forward = predictor._network.forward

        def maybe(x):
            seen.append((predictor.device.type, *x.shape))
            if not fits(x):
                raise error or torch.OutOfMemoryError("CUDA out of memory.")
            return forward(x)

        predictor._network.forward = maybe

    def place(self, device):
        real(self, device)
        limit()

    limit()
    monkeypatch.setattr(Predictor, "_place", place)
    return seen


@pytest.fixture
def large_grid(model) -> LoadedModel:
    """The tiny model on a grid of more than one tile."""
    card = replace(
        model.card, preprocessing=replace(model.card.preprocessing, grid=320)
    )
    return LoadedModel(model.network, card, model.report)


@pytest.mark.slow
def test_tiles_with_context_equal_the_whole(large_grid, frames):
    whole = Predictor(large_grid, CPU, reduced_precision=False)
    tiled = Predictor(large_grid, CPU, reduced_precision=False)
    tiled._tiled = True
    sizes = []
    real = tiled._network.forward
    tiled._network.forward = lambda x: sizes.append(tuple(x.shape[-2:])) or real(x)
    for frame in (frames[0], frames[1][:, :90]):
        expected = whole.predict(frame).astype(int)
        assert np.abs(tiled.predict(frame) - expected).max() <= 1
    assert len(sizes) == 4 + 4
    assert max(sizes) < (320, 320)


def test_context_covers_what_a_pixel_can_see():
    """The receptive field of the network, measured by its gradient."""
    network = CMUNet(2).eval().double()
    for parameter in network.parameters():
        # Nothing negative: no ReLU hides a path.
        torch.nn.init.uniform_(parameter, 0.1, 0.2)
    x = torch.rand(1, 1, 256, 256, dtype=torch.double, requires_grad=True)
    for row in (112, 119, 127, 128, 143):  # any place in a block of 16
        (gradient,) = torch.autograd.grad(network(x)[0, :, row, 128].sum(), x)
        rows = gradient[0, 0].abs().sum(1).nonzero().flatten()
        assert row - predict_module.CONTEXT <= rows.min()
        assert rows.max() <= row + predict_module.CONTEXT
        assert rows.max() - rows.min() > 128


def test_smaller_batches_then_done(model, predictor, frames, monkeypatch):
    short = Predictor(model, CPU, reduced_precision=False)
    short.batch = 4
    limited(short, monkeypatch, lambda x: len(x) <= 1)
    found = {one.index: one.probability for one in short.predict_frames(frames)}
    assert short.notices == [
        "Out of memory: 2 frame(s) at a time from now on.",
        "Out of memory: 1 frame(s) at a time from now on.",
    ]
    assert sorted(found) == [0, 1, 2, 3, 4]
    for index, probability in found.items():
        expected = predictor.predict(frames[index]).astype(int)
        assert np.abs(probability - expected).max() <= 1


def test_tiles_then_done(large_grid, frames, monkeypatch):
    expected = Predictor(large_grid, CPU, reduced_precision=False).predict(frames[0])
    short = Predictor(large_grid, CPU, reduced_precision=False)
    short.batch = 2
    limited(short, monkeypatch, lambda x: len(x) == 1 and x.shape[-1] < 320)
    assert np.abs(short.predict(frames[0]) - expected.astype(int)).max() <= 1
    assert [n.split(":")[0] for n in short.notices] == ["Out of memory"] * 2
    assert "tiles" in short.notices[-1]
    # From now on: the next frame is not tried whole again.
    short.predict(frames[1])
    assert len(short.notices) == 2


def on_fake_gpu(model, monkeypatch, fits, error=None) -> Predictor:
    """A predictor on the device 'mps' that really computes on the CPU."""
    real_place = Predictor._place
    real_prepare = predict_module.prepare
    monkeypatch.setattr(
        predict_module, "prepare", lambda frames, how, _: real_prepare(frames, how)
    )

    def place(self, device):
        real_place(self, CPU)
        self.device = device
        self.batch = 1 if device.type == "cpu" else 2

        forward = self._network.forward

        def maybe(x):
            if not fits(device.type, x):
                raise error or torch.OutOfMemoryError("MPS backend out of memory")
            return forward(x)

        self._network.forward = maybe

    monkeypatch.setattr(Predictor, "_place", place)
    return Predictor(model, torch.device("mps"), reduced_precision=False)


def test_from_the_gpu_down_to_the_cpu(model, predictor, frames, monkeypatch):
    expected = predictor.predict(frames[0])
    short = on_fake_gpu(model, monkeypatch, lambda device, x: device == "cpu")
    assert np.array_equal(short.predict(frames[0]), expected)
    assert short.device.type == "cpu"
    assert len(short.notices) == 3
    assert "1 frame(s)" in short.notices[0]
    assert "tiles" in short.notices[1]
    assert short.notices[2] == "Out of memory on mps; using the CPU."


def test_a_lost_device_is_left_for_the_cpu(model, predictor, frames, monkeypatch):
    expected = predictor.predict(frames[0])
    lost = on_fake_gpu(
        model,
        monkeypatch,
        lambda device, x: device == "cpu",
        RuntimeError("CUDA error: unspecified launch failure\nCompile with ..."),
    )
    assert np.array_equal(lost.predict(frames[0]), expected)
    assert lost.notices == [
        "mps failed (CUDA error: unspecified launch failure); using the CPU."
    ]


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (torch.OutOfMemoryError("no"), "Not enough memory.*Close other programs"),
        (RuntimeError("DefaultCPUAllocator: not enough memory"), "Not enough memory"),
        (RuntimeError("mkldnn lost\nsecond line"), "Prediction failed: mkldnn lost$"),
    ],
)
def test_no_way_out_is_one_clear_error(model, frames, monkeypatch, error, told):
    short = Predictor(model, CPU)
    limited(short, monkeypatch, lambda x: False, error)
    with pytest.raises(DeviceError, match=told) as caught:
        short.predict(frames[0])
    assert len(str(caught.value).splitlines()) == 1


def test_a_model_that_does_not_fit_goes_to_the_cpu(model, frames, monkeypatch):
    real = CMUNet.to

    def to(self, *args, **kwargs):
        if args and str(args[0]) == "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return real(self, *args, **kwargs)

    monkeypatch.setattr(CMUNet, "to", to)
    monkeypatch.setattr(predict_module, "inference_dtype", lambda _: torch.float32)
    short = Predictor(model, torch.device("cuda"))
    assert short.device.type == "cpu"
    assert short.notices == ["The model does not fit on cuda; using the CPU."]
    assert short.predict(frames[0]).any()


def test_notices_are_told_once(model, frames, monkeypatch, caplog, capsys):
    """Who runs the predictor shows its notices; the log does not shout them too."""
    short = Predictor(model, CPU)
    short.batch = 2
    limited(short, monkeypatch, lambda x: len(x) <= 1)
    with caplog.at_level(logging.INFO):
        list(short.predict_frames(frames[:3]))
    assert len(short.notices) == 1
    assert [r.levelname for r in caplog.records] == ["INFO"]


# The rest


def test_description_names_device_and_format(model):
    exact = Predictor(model, CPU, reduced_precision=False)
    assert exact.description.startswith("CPU (")
    assert exact.description.endswith("fp32")


def test_the_model_is_not_changed(model, frames):
    before = {k: v.clone() for k, v in model.network.state_dict().items()}
    Predictor(model, CPU).predict(frames[0])
    for name, value in model.network.state_dict().items():
        assert torch.equal(value, before[name])
        assert value.dtype == before[name].dtype


@pytest.mark.slow
def test_a_large_frame_needs_no_more_than_its_own_size(tiny_model):
    """A few bytes a pixel beyond what is loaded anyway; in a process of its own."""
    code = f"""
import resource, numpy as np, torch
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.predictor import Predictor
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
predictor = Predictor(load_model({str(tiny_model)!r}), torch.device("cpu"))
predictor.predict(np.zeros((64, 64), np.uint8))
frame = np.zeros((5000, 5000), np.uint8)
frame[::3] = 7
before = peak()
assert predictor.predict(frame).shape == frame.shape
print((peak() - before) / frame.size)
"""
    pytest.importorskip("resource")
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 12
