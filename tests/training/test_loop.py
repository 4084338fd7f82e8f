"""Fine-tuning: it learns, repeats itself, stops when told, and never lies."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cmunet.errors import TrainingError
from napari_cmunet.model import device as device_module
from napari_cmunet.model.card import Preprocessing
from napari_cmunet.model.network import CMUNet
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training import dataset as dataset_module
from napari_cmunet.training import loop as finetune_module
from napari_cmunet.training.augment import Augmentation
from napari_cmunet.training.config import FinetuneConfig, FinetuneResult
from napari_cmunet.training.dataset import (
    REVIEWED,
    TARGET,
    WHOLE,
    Label,
    LabelBatches,
    LabelledFrames,
    prepare_labels,
)
from napari_cmunet.training.evaluation.validation import Measured, measure
from napari_cmunet.training.events import Finished, Note, Started, Step, Validated
from napari_cmunet.training.loop import finetune
from napari_cmunet.training.optim import WarmupCosineLR
from napari_cmunet.training.trainer import LEAST_WARMUP, Trainer

PREP = Preprocessing(grid=64)
STILL = Augmentation(
    rotation=0,
    zoom=(1, 1),
    shift=0,
    elastic=0,
    contrast=0,
    brightness=0,
    noise=0,
    blur=0,
)
QUICK = FinetuneConfig(steps=6, batch=2, validate_every=3)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def labels() -> LabelledFrames:
    """Four phantom frames of four patients."""
    made = [make_frame(PhantomConfig(size=128, seed=seed)) for seed in (1, 2, 4, 7)]
    return prepare_labels(
        [Label(f, m, patient=f"p{i}", name=str(i)) for i, (f, m) in enumerate(made)],
        PREP,
    )


def network(width: int = 2, seed: int = 0) -> CMUNet:
    torch.manual_seed(seed)
    return CMUNet(width)


def run(training) -> tuple[list, FinetuneResult]:
    events = []
    while True:
        try:
            events.append(next(training))
        except StopIteration as end:
            return events, end.value


def same(a: dict, b: dict) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


@pytest.mark.slow
def test_a_few_frames_are_learnt_by_heart(labels, monkeypatch):
    as_they_are = lambda x, maps, *_: (x.float(), maps)  # noqa: E731
    monkeypatch.setattr(dataset_module, "augment", as_they_are)
    net = network(8)
    before = measure(net, labels).dice
    config = FinetuneConfig(steps=70, batch=4, learning_rate=1e-2, ema=0.8)
    _, result = run(finetune(net, labels, config))
    learnt = CMUNet(8)
    learnt.load_state_dict(result.weights)
    after = measure(learnt, labels)
    assert before < 0.3
    assert after.dice > 0.8
    assert after.interval[0] <= after.dice <= after.interval[1]


@pytest.mark.slow
def test_same_seed_same_weights_bit_for_bit(labels):
    results = [
        run(finetune(network(), labels, replace(QUICK, seed=seed)))[1]
        for seed in (3, 3, 4)
    ]
    assert same(results[0].weights, results[1].weights)
    assert not same(results[0].weights, results[2].weights)


def test_events_tell_the_story_in_order(labels):
    train, validation = labels.subset([0, 1, 2]), labels.subset([3])
    events, result = run(
        finetune(network(), train, QUICK, validation=validation, receipt="a receipt")
    )
    started = events[0]
    assert started == Started(6, 3, 3, 1, 1, "cpu", "a receipt")
    assert [e.step for e in events if isinstance(e, Validated)] == [3, 6]
    steps = [e for e in events if isinstance(e, Step)]
    assert steps[-1].step == steps[-1].steps == 6
    assert steps[-1].seconds_left == 0
    assert all(np.isfinite(e.loss) for e in steps)
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert finished.reason == result.reason == "done"
    assert finished.dice == result.dice


def test_the_best_step_is_kept_not_the_last(labels, monkeypatch):
    scores = iter([0.5, 0.9, 0.4])
    monkeypatch.setattr(
        finetune_module,
        "measure",
        lambda *a: Measured(next(scores), (0, 1), 0.1),
    )
    kept = []
    real = finetune_module.copy_weights
    monkeypatch.setattr(
        finetune_module, "copy_weights", lambda n: kept.append(real(n)) or kept[-1]
    )
    config = replace(QUICK, steps=3, validate_every=1)
    events, result = run(
        finetune(
            network(), labels.subset([0, 1]), config, validation=labels.subset([2])
        )
    )
    assert (result.best_step, result.steps, result.dice) == (2, 3, 0.9)
    assert result.weights is kept[1]
    assert [e.best for e in events if isinstance(e, Validated)] == [True, True, False]


def test_patience_ends_a_training_that_gets_no_better(labels, monkeypatch):
    scores = itertools.chain([0.5], itertools.repeat(0.4))
    monkeypatch.setattr(
        finetune_module,
        "measure",
        lambda *a: Measured(next(scores), (0, 1), 0.1),
    )
    config = replace(QUICK, steps=50, validate_every=1, patience=2)
    _, result = run(
        finetune(
            network(), labels.subset([0, 1]), config, validation=labels.subset([2])
        )
    )
    assert (result.reason, result.best_step, result.steps) == ("early stop", 1, 3)


def test_stop_at_once_gives_the_weights_that_it_started_from(labels):
    net = network()
    start = {k: v.clone() for k, v in net.state_dict().items()}
    events, result = run(finetune(net, labels, QUICK, should_stop=lambda: True))
    assert (result.reason, result.steps) == ("stopped", 0)
    assert same(result.weights, start)
    assert isinstance(events[-1], Finished)


def test_stop_gives_the_best_so_far(labels):
    asked = itertools.count()
    events, result = run(
        finetune(
            network(),
            labels.subset([0, 1]),
            replace(QUICK, steps=500),
            validation=labels.subset([2, 3]),
            should_stop=lambda: next(asked) >= 5,
        )
    )
    assert (result.reason, result.steps, result.best_step) == ("stopped", 5, 3)
    assert result.dice is not None
    CMUNet(2).load_state_dict(result.weights)
    assert events[-1].reason == "stopped"


def test_the_averaged_network_is_a_mean_of_the_past(labels):
    config = replace(QUICK, ema=0.5, augmentation=STILL)
    trainer = Trainer(network(), labels, None, config, CPU, 4)
    name = "conv_last.weight"
    expected = trainer.network.state_dict()[name].clone()
    for step in range(4):
        trainer.take_step()
        keep = min(0.5, (1 + step) / (4 + step))
        expected = keep * expected + (1 - keep) * trainer.network.state_dict()[name]
        torch.testing.assert_close(trainer.model().state_dict()[name], expected)
    assert not trainer.model().training


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.slow
def test_the_averaged_network_keeps_a_share_of_its_start(labels, count):
    """By the number of labels: one weighs as much as the start where 1 is kept."""
    config = replace(QUICK, augmentation=STILL)
    few = labels.subset(range(count))
    free, kept = (
        Trainer(network(), few, None, replace(config, wise_ft_prior=keep), CPU, 4)
        for keep in (0.0, 1.0)
    )
    start = {k: v.clone() for k, v in kept.network.state_dict().items()}
    for _ in range(4):
        free.take_step()
        kept.take_step()
    moved = free.model().state_dict()
    for name, value in kept.model().state_dict().items():
        if value.is_floating_point():
            mixed = torch.lerp(moved[name], start[name], 1 / (1 + count))
            torch.testing.assert_close(value, mixed, rtol=1e-4, atol=1e-6)
    assert not torch.equal(moved["conv_last.weight"], start["conv_last.weight"])


@pytest.mark.parametrize("told", [True, False])
def test_a_loss_that_is_no_number_is_an_error(labels, monkeypatch, told):
    """Also where the training ends before the next report of its loss."""
    real = Trainer._loss
    calls = itertools.count()

    def spoilt(self, logits, maps):
        return real(self, logits, maps) * (float("nan") if next(calls) == 2 else 1)

    monkeypatch.setattr(Trainer, "_loss", spoilt)
    asked = itertools.count()
    stop = (lambda: False) if told else (lambda: next(asked) >= 4)
    with pytest.raises(TrainingError, match=r"loss became nan.*lower learning rate"):
        run(finetune(network(), labels, QUICK, should_stop=stop))


def test_a_gradient_that_is_no_number_is_an_error(labels, monkeypatch):
    real = torch.nn.utils.clip_grad_norm_

    def spoilt(parameters, limit):
        parameters = list(parameters)
        parameters[0].grad[0] = float("inf")
        return real(parameters, limit)

    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", spoilt)
    with pytest.raises(TrainingError, match="lower learning rate"):
        run(finetune(network(), labels, QUICK))


@pytest.fixture
def little_memory(monkeypatch):
    """A network that runs out of memory above so many frames at once."""

    def limit(net: CMUNet, frames: int, error: Exception | None = None) -> CMUNet:
        real = net.forward

        def forward(x):
            if len(x) > frames:
                raise error or torch.OutOfMemoryError("CUDA out of memory.")
            return real(x)

        monkeypatch.setattr(net, "forward", forward)
        return net

    return limit


def full_precision(monkeypatch) -> None:
    monkeypatch.setattr(device_module, "fast_dtype", lambda _: torch.float32)


@pytest.mark.parametrize(("batch", "fits"), [(4, 2), (4, 1), (3, 2), (5, 1)])
def test_out_of_memory_same_gradients_from_smaller_parts(
    labels, monkeypatch, little_memory, batch, fits
):
    full_precision(monkeypatch)
    config = FinetuneConfig(batch=batch, frozen_batchnorm=True)
    whole = Trainer(network(), labels, None, config, CPU, 10)
    parts = Trainer(little_memory(network(), fits), labels, None, config, CPU, 10)
    loss = whole.take_step()
    while (loss_in_parts := parts.take_step()) is None:
        pass
    torch.testing.assert_close(loss_in_parts, loss)
    for (name, a), b in zip(
        whole.network.named_parameters(), parts.network.parameters(), strict=True
    ):
        torch.testing.assert_close(b.grad, a.grad, rtol=1e-3, atol=1e-6, msg=name)


def test_gradients_are_the_same_in_either_layout(labels, monkeypatch):
    full_precision(monkeypatch)
    config = FinetuneConfig(batch=4, frozen_batchnorm=True)
    gradients = []
    for avx512 in (True, False):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda avx512=avx512: {"avx512_f": avx512}
        )
        trainer = Trainer(network(), labels, None, config, CPU, 10)
        trainer.take_step()
        gradients.append([p.grad for p in trainer.network.parameters()])
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_out_of_memory_is_said_and_training_goes_on(labels, little_memory):
    config = replace(QUICK, batch=4)
    events, result = run(finetune(little_memory(network(), 1), labels, config))
    notes = [e.text for e in events if isinstance(e, Note)]
    assert len(notes) == 2
    assert all("Out of memory" in text for text in notes)
    assert (result.reason, result.steps) == ("done", 6)


@pytest.mark.slow
def test_statistics_are_counted_once_in_parts(labels, little_memory):
    """The pass that only looks for the gradient moves no running statistics."""
    config = replace(QUICK, batch=2)
    trainer = Trainer(little_memory(network(), 1), labels, None, config, CPU, 10)
    trainer.parts = 2
    norm = trainer.network.down_conv1.double_conv.double_conv[1]
    trainer._drawn = trainer._batches.draw(2)
    with torch.no_grad():
        conv = trainer.network.down_conv1.double_conv.double_conv[0]
        means = [conv(x).mean((0, 2, 3)) for x in trainer._drawn[0][0].chunk(2)]
    trainer.take_step()
    expected = 0.1 * (0.9 * means[0] + means[1])
    torch.testing.assert_close(norm.running_mean, expected, rtol=0.05, atol=1e-3)


def test_no_memory_at_all_is_an_error_that_says_what_to_do(labels, little_memory):
    with pytest.raises(TrainingError, match=r"Not enough memory on cpu.*Close other"):
        run(finetune(little_memory(network(), 0), labels, QUICK))


@pytest.mark.parametrize("where", ["training", "validation"])
def test_whatever_torch_raises_is_a_training_error(labels, monkeypatch, where):
    def lost(*args, **kwargs):
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nx")

    if where == "training":
        monkeypatch.setattr(Trainer, "_loss", lost)
    else:
        monkeypatch.setattr(finetune_module, "measure", lost)
    with pytest.raises(TrainingError, match=r"failed on cpu: CUDA error.*again"):
        run(
            finetune(
                network(), labels.subset([0, 1]), QUICK, validation=labels.subset([2])
            )
        )


@pytest.fixture
def clock(monkeypatch):
    """Time that passes only when a step is made: ``clock.each(step)`` seconds."""

    class Clock:
        now = 0.0
        each = staticmethod(lambda step: 1.0)

        def monotonic(self):
            return self.now

    clock = Clock()
    real = Trainer.take_step

    def take_step(self):
        clock.now += clock.each(self.step)
        clock.rate = self.schedule.factor(self.step)
        return real(self)

    monkeypatch.setattr(Trainer, "take_step", take_step)
    monkeypatch.setattr(finetune_module, "time", clock)
    return clock


@pytest.mark.slow
def test_minutes_are_kept(labels, clock):
    config = replace(QUICK, steps=100_000, validate_every=20, minutes=1, batch=2)
    events, result = run(
        finetune(
            network(), labels.subset([0, 1]), config, validation=labels.subset([2])
        )
    )
    assert 50 < clock.now <= 61
    assert 50 < result.steps <= 61
    # Its last weights were looked at, however it ended.
    assert [e.step for e in events if isinstance(e, Validated)][-1] == result.steps


@pytest.mark.slow
def test_the_learning_rate_comes_down_though_the_machine_slows(labels, clock):
    clock.each = lambda step: 1.0 if step < 8 else 4.0
    config = replace(QUICK, steps=100_000, minutes=5, batch=1)

    run(finetune(network(), labels.subset([0]), config))

    assert clock.now <= 304
    assert clock.rate < 0.05


def test_patients_on_both_sides_are_refused(labels):
    with pytest.raises(TrainingError, match="1 patient"):
        next(
            finetune(
                network(), labels.subset([0, 1]), QUICK, validation=labels.subset([1])
            )
        )


def test_unknown_patients_are_not_held_to_be_one(labels):
    nameless = replace(labels, patients=("",) * 4)
    next(
        finetune(
            network(), nameless.subset([0, 1]), QUICK, validation=nameless.subset([2])
        )
    )


@pytest.mark.parametrize("channel", [TARGET, REVIEWED])
def test_labels_without_an_artery_cannot_be_learnt_from(labels, channel):
    maps = labels.maps.clone()
    maps[:, channel] = 0
    with pytest.raises(TrainingError, match="None of the labels holds an artery"):
        next(finetune(network(), replace(labels, maps=maps), QUICK))


def test_no_labels(labels):
    with pytest.raises(TrainingError, match="no label"):
        next(finetune(network(), labels.subset([]), QUICK))


@pytest.mark.parametrize(
    "values", [{"batch": 0}, {"validate_every": 0}, {"steps": -1}, {"crop": 100}]
)
def test_impossible_settings_are_refused(values):
    with pytest.raises(TrainingError):
        FinetuneConfig(**values)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_companions_fill_their_share(labels, share):
    dark = replace(labels, frames=torch.full_like(labels.frames, 7.0))
    config = replace(QUICK, batch=4, auxiliary_share=share, augmentation=STILL)
    (frames,), _ = LabelBatches(labels, dark, config, CPU).draw(4)
    from_companion = (frames[:, 0, 32, 32] == 7).sum()
    assert int(from_companion) == 4 * share


def test_every_label_comes_before_any_comes_again(labels):
    batches = LabelBatches(labels, None, QUICK, CPU)
    drawn = [batches._next(2) for _ in range(6)]
    for start in (0, 2, 4):
        assert sorted(drawn[start] + drawn[start + 1]) == [0, 1, 2, 3]


@pytest.mark.slow
def test_frozen_batchnorm_keeps_the_statistics(labels):
    for frozen in (True, False):
        config = replace(QUICK, steps=2, frozen_batchnorm=frozen)
        net = network()
        before = net.double_conv.double_conv[1].running_mean.clone()
        run(finetune(net, labels, config))
        after = net.double_conv.double_conv[1].running_mean
        assert torch.equal(before, after) == frozen


def rates_of(steps: int, warmup: float, least: int = LEAST_WARMUP) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupCosineLR(optimiser, steps, warmup, least)
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


def test_learning_rate_rises_and_falls():
    rates = rates_of(200, 0.1)
    assert rates[19] == max(rates) == 1
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[0] <= 0.05
    assert rates[-1] < 0.01


def test_a_training_of_a_few_steps_goes_carefully():
    """Cut to one step by its time, a training went at the full rate: all was lost."""
    assert rates_of(1, 0.05)[0] < 0.1
    assert max(rates_of(5, 0.05)) < 0.5


def test_one_step_spoils_nothing(labels):
    start = network()
    before = {k: v.clone() for k, v in start.state_dict().items()}
    config = replace(QUICK, steps=1)
    _, result = run(finetune(start, labels.subset([0, 1]), config))
    kernel = "down_conv1.double_conv.double_conv.0.weight"
    moved = (result.weights[kernel] - before[kernel]).abs().max()
    assert 0 < moved < config.learning_rate / 10


def test_measure_sees_reviewed_pixels_alone(labels):
    class Everything(torch.nn.Module):
        def forward(self, x):
            return torch.cat([torch.zeros_like(x), torch.ones_like(x)], 1)

    maps = labels.maps.clone()
    mostly = maps[:, TARGET] > WHOLE // 2
    maps[:, REVIEWED] = WHOLE * mostly
    assert measure(Everything(), replace(labels, maps=maps)).dice == 1
    share = mostly.float().mean((1, 2))
    expected = float((2 * share / (1 + share)).mean())
    assert measure(Everything(), labels, batch=3).dice == pytest.approx(expected)


@pytest.mark.filterwarnings("error")
def test_no_warning_on_processors_without_bfloat16(labels, monkeypatch):
    full_precision(monkeypatch)
    train, validation = labels.subset([0, 1]), labels.subset([2])
    run(finetune(network(), train, replace(QUICK, steps=2), validation=validation))


def test_an_optimiser_does_not_import_torchs_compiler(run_python):
    run_python(
        "import sys, torch\n"
        "from napari_cmunet.training.optim import adamw\n"
        "weight = torch.nn.Parameter(torch.ones(2, 2))\n"
        "optimiser = adamw([weight], 0.1, 0.0)\n"
        "optimiser.zero_grad()\n"
        "weight.sum().backward()\n"
        "optimiser.step()\n"
        "assert weight.max() < 1\n"
        "assert 'torch._dynamo' not in sys.modules"
    )
