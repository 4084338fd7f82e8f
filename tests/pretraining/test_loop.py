"""Pre-training: what it learns, how it stops, fails, and goes on after a kill."""

from __future__ import annotations

import json
import math
import multiprocessing
import random
import socket
import sys
import time
from dataclasses import replace
from itertools import count
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from napari_cmunet.errors import ReadError, TrainingError
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.registry import load_weights
from napari_cmunet.pretraining import loop as pretrain_loop
from napari_cmunet.pretraining import step as pretrain_step
from napari_cmunet.pretraining.augment import paste_arteries
from napari_cmunet.pretraining.checkpoint import read_state
from napari_cmunet.pretraining.config import PretrainConfig, split
from napari_cmunet.pretraining.loop import Pretraining
from napari_cmunet.pretraining.moco import PretrainNetworks
from napari_cmunet.training.events import (
    PretrainEpoch,
    PretrainFinished,
    PretrainStarted,
    PretrainStep,
)
from napari_cmunet.training.losses import segmentation_loss
from tests.pretraining import pretrain_child
from tests.pretraining.pretrain_child import config, frames, phantoms

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def finish(generator):
    events = []
    while True:
        try:
            events.append(next(generator))
        except StopIteration as stop:
            return events, stop.value


def pretrain(frames, how, **options):
    """A whole run, as a generator of its events."""
    training = Pretraining(frames, how, **options)
    yield from training.run()
    return training.result()


@pytest.fixture(scope="module")
def start():
    """Start a process of pretrain_child.py, where possible with torch imported."""
    fork = sys.platform != "win32"
    context = multiprocessing.get_context("forkserver" if fork else "spawn")
    if fork:
        context.set_forkserver_preload([pretrain_child.__name__])

    def start_it(*arguments, **variables):
        process = context.Process(
            target=pretrain_child.main, args=(arguments, variables)
        )
        process.start()
        return process

    return start_it


def ended_well(*processes) -> bool:
    for process in processes:
        process.join()
    return not any(process.exitcode for process in processes)


def read(folder: Path, run: str):
    path = folder / f"{run}.safetensors"
    with safe_open(path, "pt") as file:
        curve = json.loads(file.metadata()["curve"])
    return load_file(path), curve


def test_it_learns_and_tells():
    events, result = finish(pretrain(frames(), config(epochs=12, learning_rate=2e-2)))
    assert isinstance(events[0], PretrainStarted)
    assert (events[0].frames, events[0].held_out) == (13, 1)
    assert isinstance(events[-1], PretrainFinished)
    assert events[-1].reason == "done"
    epochs = [e for e in events if isinstance(e, PretrainEpoch)]
    assert [e.epoch for e in epochs] == list(range(12))
    assert epochs[0].reconstruction == pytest.approx(1, abs=0.01)
    assert epochs[-1].reconstruction < 0.985
    assert epochs[-1].held_out < epochs[0].held_out
    assert any(isinstance(e, PretrainStep) for e in events)
    assert result.step == events[0].steps == 12 * 3
    assert result.history == tuple(epochs)
    assert result.phantom_dice is None


def test_the_weights_start_a_fine_tuning():
    _, result = finish(pretrain(frames(), config(epochs=1)))
    assert not any(name.startswith("conv_last") for name in result.weights)
    report = load_weights(CMUNet(2), result.weights, "pretrained")
    assert report.loaded == report.total
    assert not report.head_loaded


def test_what_it_leaves_is_the_momentum_target():
    training = Pretraining(frames(), config(epochs=2, learning_rate=1e-2))
    for _ in training.run():
        pass
    left = training.result().weights["down_conv1.double_conv.double_conv.0.weight"]
    networks = training.stepper.networks
    online, target = (
        n.down_conv1.double_conv.double_conv[0].weight
        for n in (networks.network, networks.target_network)
    )
    assert torch.equal(left, target)
    assert not torch.equal(left, online)


def test_the_target_keeps_a_start_and_soon_forgets_random_weights():
    how = config(phantoms=6, phantom_share=0.5)
    new = Pretraining(frames(), how, phantoms=phantoms()).stepper
    assert [round(new.momentum(step, 0.0), 2) for step in (0, 5, 96)] == [
        0.25,
        0.67,
        0.97,
    ]
    assert new.momentum(10_000, 0.0) == pytest.approx(how.momentum)
    again = Pretraining(frames(), how, phantoms(), start=CMUNet(2)).stepper
    assert again.momentum(0, 0.0) == pytest.approx(how.momentum)
    assert again.momentum(0, 1.0) == pytest.approx(1)


@pytest.mark.parametrize(
    ("steps", "kept"), [(24, 0.37), (100, 0.37), (486, 0.37), (1000, 0.135)]
)
def test_a_short_run_too_leaves_more_than_its_start(steps, kept):
    stepper = Pretraining(frames(), config(), start=CMUNet(2)).stepper
    shares = (stepper.momentum(step, step / steps) for step in range(steps))
    assert math.prod(shares) == pytest.approx(kept, abs=0.03)


def test_statistics_are_those_of_whole_frames():
    _, result = finish(pretrain(frames(), config(epochs=1)))
    network = CMUNet(2)
    load_weights(network, result.weights, "pretrained")
    first = network.down_conv1.double_conv.double_conv[0]
    views = frames().frames.float()
    with torch.inference_mode():
        seen = first(views).var((0, 2, 3))
    stored = network.down_conv1.double_conv.double_conv[1].running_var
    # Of masked frames it would be about a third.
    assert torch.allclose(stored, seen, rtol=0.35)


def test_phantoms_train_the_last_convolution():
    how = config(epochs=15, phantoms=6, phantom_share=0.5, learning_rate=1e-2)
    events, result = finish(pretrain(frames(), how, phantoms=phantoms()))
    assert events[0].phantoms == 5  # one is kept for measuring
    assert "conv_last.weight" in result.weights
    epochs = result.history
    assert epochs[-1].segmentation < 0.8 * epochs[0].segmentation
    assert epochs[-1].phantom_dice > epochs[0].phantom_dice


def test_masked_frames_are_segmented_as_the_target_segments_whole_ones():
    torch.manual_seed(0)  # a start that is confident of some background
    start = CMUNet(2)
    how = config(epochs=2, phantoms=6, phantom_share=0.5)
    alone = finish(pretrain(frames(), how, phantoms=phantoms(), start=start))[1]
    how = replace(how, consistency_weight=1.0)
    pseudo = finish(pretrain(frames(), how, phantoms=phantoms(), start=start))[1]
    # It is part of the frames' loss, and reaches the last convolution.
    assert pseudo.history[0].loss > alone.history[0].loss
    name = "conv_last.weight"
    assert not torch.equal(pseudo.weights[name], alone.weights[name])


def test_only_what_the_target_is_sure_of_is_taught():
    probability = torch.tensor([0.95, 0.6, 0.1, 0.95]).view(1, 1, 1, 4)
    seen = torch.tensor([1.0, 1, 1, 0]).view(1, 1, 1, 4)
    artery, confident = pretrain_step.confident_labels(torch.logit(probability), seen)
    assert artery.flatten().tolist() == [1, 0, 0, 1]
    assert confident.flatten().tolist() == [1, 0, 1, 0]


def test_trees_are_drawn_into_frames_where_these_have_no_artery(monkeypatch):
    start = CMUNet(2)
    how = config(phantoms=6, phantom_share=0.5, consistency_weight=1.0, copy_paste=0.5)
    stepper = Pretraining(frames(), how, phantoms=phantoms(), start=start).stepper
    seen, shown, drawn = [], [], []

    def segment(views):
        shown.append(views)
        return PretrainNetworks.segment(stepper.networks, views)

    def draw(frames, trees, chance):
        drawn.append((frames, trees))
        return paste_arteries(frames, trees, chance)

    def spy(logits, target, reviewed, skeleton, **options):
        if "skeleton_weight" not in options or options["skeleton_weight"]:
            seen.append((target, reviewed))
        return segmentation_loss(logits, target, reviewed, skeleton, **options)

    def half_of_it(logit, where):
        artery = torch.zeros_like(logit)
        artery[..., :8] = 1  # the target's own artery: not known in a composite
        confident = torch.ones_like(logit)
        confident[..., 24:] = 0
        return artery, confident

    monkeypatch.setattr(pretrain_step, "segmentation_loss", spy)
    monkeypatch.setattr(pretrain_step, "confident_labels", half_of_it)
    monkeypatch.setattr(pretrain_step, "paste_arteries", draw)
    monkeypatch.setattr(pretrain_step, "jitter_intensity", lambda views, *how: views)
    monkeypatch.setattr(stepper.networks, "segment", segment)
    stepper.step(0, 0, 0.5)
    # As it is a frame, darker where the tree is and nowhere else.
    ((frame, trees),) = drawn
    darker = frame - shown[0][1:]
    near = torch.nn.functional.max_pool2d(trees, 3, 1, 1) > 0
    assert darker[~near].abs().max() == 0
    assert darker[trees > 0.99].min() > 0.5
    assert stepper.take(range(14)).std() == pytest.approx(frame.std(), rel=0.5)
    (whole, _), (tree, known) = seen
    assert 0 < tree.mean() < 1
    assert 0 < whole.mean() < 1
    off = tree == 0
    assert known[..., 8:24].min() == 1
    assert known[..., :8][off[..., :8]].max() == 0
    assert known[..., 24:][off[..., 24:]].max() == 0
    assert known[tree > 0.5].min() == 1
    soft = (tree > 0) & (tree < 0.5)
    assert known[..., :8][soft[..., :8]].max() == 0  # of which artery, nobody knows


def test_a_start_of_another_width_is_refused():
    with pytest.raises(TrainingError, match="width 3, not 2"):
        Pretraining(frames(), config(), start=CMUNet(3))


def test_reconstructions_show_the_frame_where_it_was_shown():
    _, result = finish(pretrain(frames(), config(epochs=1)))
    shown = result.examples.masked != 0
    assert 0.2 < shown.float().mean() < 0.55
    assert torch.equal(result.examples.rebuilt[shown], result.examples.whole[shown])
    assert not torch.equal(result.examples.rebuilt, result.examples.whole)


def test_same_seed_same_weights():
    runs = [finish(pretrain(frames(), config(epochs=1)))[1] for _ in range(2)]
    for name, value in runs[0].weights.items():
        assert torch.equal(value, runs[1].weights[name]), name
    other = finish(pretrain(frames(), config(epochs=1, seed=1)))[1]
    assert not torch.equal(
        other.weights["down_conv1.double_conv.double_conv.0.weight"],
        runs[0].weights["down_conv1.double_conv.double_conv.0.weight"],
    )


def test_stopped_and_resumed_is_as_never_stopped(tmp_path):
    whole = Pretraining(frames(), config())
    finish(whole.run())
    path, steps = tmp_path / "checkpoint.safetensors", 0

    def soon() -> bool:
        nonlocal steps
        steps += 1
        return steps > 5

    first = Pretraining(
        frames(), config(save_seconds=99, save_minutes=99), checkpoint=path
    )
    events, _ = finish(first.run(soon))
    assert (events[-1].reason, events[-1].step) == ("stopped", 5)
    second = Pretraining(frames(), config(), checkpoint=path, resume=True)
    events, _ = finish(second.run())
    assert events[0].step == 5
    assert events[-1].reason == "done"
    a, b = (t.stepper.networks.state_dict() for t in (whole, second))
    assert all(torch.equal(a[name], b[name]) for name in a)
    plain = [replace(e, seconds=0) for e in whole.history]
    assert [replace(e, seconds=0) for e in second.history] == plain
    # A third start finds nothing to do, and the same result.
    third = Pretraining(frames(), config(), checkpoint=path, resume=True)
    events, _ = finish(third.run())
    assert [type(e) for e in events] == [PretrainStarted, PretrainFinished]
    c = third.result().weights
    assert all(torch.equal(v, second.result().weights[k]) for k, v in c.items())


def test_killed_at_random_moments_it_ends_as_if_never_killed(tmp_path, start):
    whole, killed, run = tmp_path / "whole", tmp_path / "killed", "float32-6"
    checkpoint = tmp_path / "checkpoint.safetensors"
    undisturbed = start(whole, None, 0, run)
    kills, steps = 0, []
    while kills < 2:
        process = start(killed, checkpoint, 0.15, run)
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.is_alive() and (
            not checkpoint.exists() or checkpoint.stat().st_mtime_ns == before
        ):
            time.sleep(0.01)
        time.sleep(random.uniform(0, 0.6))
        process.kill()
        process.join()
        kills += 1
        steps.append(read_state(checkpoint)["step"])
    assert 0 < steps[0] <= steps[1]
    assert ended_well(start(killed, checkpoint, 0, run), undisturbed)
    (a, curve), (b, other) = read(whole, run), read(killed, run)
    assert curve == other
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


RUNS = {"float32-0": 1e-4, "float64-6": 1e-9}


@pytest.fixture(scope="module")
def one_and_two(tmp_path_factory, start):
    """What one process left, and two that shared the work as torchrun starts them."""
    one, two = (tmp_path_factory.mktemp(name) for name in ("one", "two"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free.getsockname()[1]}
    alone = start(one, None, 0, *RUNS)
    pair = [
        start(two, None, 0, *RUNS, RANK=n, LOCAL_RANK=n, WORLD_SIZE=2, **address)
        for n in range(2)
    ]
    assert ended_well(alone, *pair)
    return one, two


@pytest.mark.parametrize(("run", "close"), RUNS.items())
def test_two_processes_equal_one(one_and_two, run, close):
    (a, curve), (b, other) = (read(folder, run) for folder in one_and_two)
    for row, same in zip(curve, other, strict=True):
        assert row == pytest.approx(same, rel=100 * close)
    assert a.keys() == b.keys()
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=0, atol=close), name


@pytest.fixture
def ticking(monkeypatch):
    """A clock of the training that goes on by 10 ms at each look, on any machine."""
    looks = count()
    clock = SimpleNamespace(monotonic=lambda: 0.01 * next(looks))
    monkeypatch.setattr(pretrain_loop, "time", clock)


def test_the_time_budget_ends_it(ticking):
    how = config(epochs=10_000, minutes=0.02)
    events, result = finish(pretrain(frames(), how))
    assert events[-1].reason == "time"
    assert 1.2 <= result.seconds < 1.4
    # The schedule was brought to its end.
    rates = [e.learning_rate for e in result.history]
    assert rates[-1] < 0.2 * max(rates)


def test_given_more_time_it_goes_on(tmp_path, ticking):
    path = tmp_path / "checkpoint.safetensors"
    how = config(epochs=10_000, minutes=0.02)
    first = Pretraining(frames(), how, checkpoint=path)
    finish(first.run())
    again = Pretraining(frames(), how, checkpoint=path, resume=True)
    assert finish(again.run())[0][-1].step == first.step
    longer = replace(how, minutes=0.04)
    more = Pretraining(frames(), longer, checkpoint=path, resume=True)
    assert finish(more.run())[0][-1].step > first.step


def test_cines_are_held_out_whole():
    learn, held = split(frames(), PretrainConfig(grid=32, batch=4, held_out=0.5))
    groups = frames().groups
    assert not set(groups[learn].tolist()) & set(groups[held].tolist())
    assert sorted(learn + held) == list(range(14))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch": 32}, "too few"),
        ({"batch": 1}, "at least two"),
        ({"batch": 4, "phantoms": 6, "phantom_share": 0.75}, "at least two"),
        ({"crop": 40}, "multiple of 16"),
        ({"crop": 16}, "--crop 16 does not work"),
        ({"width": 0}, "--width 0 does not work"),
        ({"copy_paste": 1.5}, "--copy-paste 1.5 does not work"),
        ({"copy_paste": 0.5, "phantoms": 6}, "give both"),
    ],
)
def test_impossible_choices_are_refused(changes, words):
    how = config(**changes)
    with pytest.raises(TrainingError, match=words):
        Pretraining(frames(), how, phantoms() if how.phantoms else None)


def test_other_images_or_options_are_not_gone_on_with(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    finish(Pretraining(frames(), config(epochs=1), checkpoint=path).run())
    with pytest.raises(TrainingError, match="width 2, not 3"):
        Pretraining(frames(), config(epochs=1, width=3), checkpoint=path, resume=True)
    others = replace(frames(), digest="another")
    with pytest.raises(TrainingError, match="not the images"):
        Pretraining(others, config(epochs=1), checkpoint=path, resume=True)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ReadError, match="damaged"):
        Pretraining(frames(), config(epochs=1), checkpoint=path, resume=True)


def test_a_loss_that_is_no_number_is_an_error_and_is_not_saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    training = Pretraining(frames(), config(), checkpoint=path)
    run = training.run()
    while not path.exists():
        next(run)
    training.stepper.frames[training.learn] = float("inf")
    with pytest.raises(TrainingError, match="became nan"):
        finish(run)
    assert all(value.isfinite().all() for value in load_file(path).values())


def test_too_little_memory_says_what_to_do(monkeypatch):
    def out(*args):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(pretrain_step.PretrainStepper, "_learn_from_frames", out)
    with pytest.raises(TrainingError, match="smaller --batch"):
        finish(pretrain(frames(), config()))
