"""Profile one prediction and one training step, part by part.

    python -m benchmarks.profile_prediction [--model NAME] [--repeats 20] [--training 3]

Prints the median milliseconds of each part, its share, and GFLOP/s where it is the
network; "the machine" is a large matrix product. :mod:`benchmarks.compare_speed`
measures two versions of the program against each other.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.frames import PHANTOMS, list_frames, read_frame
from napari_cmunet.model import predictor as prediction
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.model.network import CMUNet, flop_count
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.preprocess import prepare
from napari_cmunet.model.registry import LoadedModel, load_model
from napari_cmunet.training.config import FinetuneConfig
from napari_cmunet.training.dataset import Label, prepare_labels
from napari_cmunet.training.trainer import Trainer

if TYPE_CHECKING:
    from collections.abc import Callable

BLOCKS = (
    "down_conv1 down_conv2 down_conv3 down_conv4 double_conv "
    "up_conv4 up_conv3 up_conv2 up_conv1 conv_last"
).split()
PARTS = ("prepare", "suppress_small_components", "suppress_uncertain", "restore")
Times = dict[str, list[float]]


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="cmunet-artery")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--training", type=int, default=3, help="training steps")
    args = parser.parse_args()
    model = load_model(args.model)
    product = _gigaflops_of_the_machine()
    print(f"the machine: {product:.0f} GFLOP/s, {torch.get_num_threads()} threads")
    for reduced in (False, True):
        predictor = Predictor(model, choose_device("cpu"), reduced_precision=reduced)
        print(f"\n{predictor.description}")
        _print(*profile_frame(predictor, args.repeats))
    if args.training:
        tune_malloc()
        print()
        _print(profile_training(model, args.training))


def profile_frame(predictor: Predictor, repeats: int) -> tuple[Times, float]:
    """Times of the parts of a 512 x 512 frame, and GFLOP of the network."""
    image, _ = read_frame(PHANTOMS, list_frames(PHANTOMS, "", 1)[0][0])
    predictor.predict(image)
    times: Times = defaultdict(list)
    timed = _Timer(times)
    network = predictor._network
    network.forward = timed("network", network.forward)
    for name in BLOCKS:
        if block := getattr(network, name, None):  # not in 8-bit integers
            block.forward = timed(f"  {name}", block.forward)
    originals = {name: getattr(prediction, name) for name in PARTS}
    for name, function in originals.items():
        setattr(prediction, name, timed(name, function))
    try:
        for _ in range(repeats):
            timed("whole frame", predictor.predict)(image)
    finally:
        for name, function in originals.items():
            setattr(prediction, name, function)
    _, geo = prepare(image, predictor.card.preprocessing)
    return times, flop_count(predictor.card.width, *geo.padded) / 1e9


def profile_training(model: LoadedModel, steps: int) -> Times:
    """Times of the parts of a training step at the default batch."""
    labels = [
        Label(*read_frame(PHANTOMS, name), name=name)
        for name, _ in list_frames(PHANTOMS, "", 4)
    ]
    frames = prepare_labels(labels, model.card.preprocessing)
    network = CMUNet(model.card.width)
    network.load_state_dict(model.network.state_dict())
    device = choose_device("cpu")
    trainer = Trainer(network, frames, None, FinetuneConfig(), device, steps + 1)
    trainer.take_step()
    times: Times = defaultdict(list)
    timed = _Timer(times)
    parts: tuple[tuple[str, Any, str], ...] = (
        ("draw and augment", trainer._batches, "draw"),
        ("forward", trainer, "_logits"),
        ("loss", trainer, "_loss"),
        ("optimiser", trainer.optimiser, "step"),
        ("averaging", trainer.average, "update_parameters"),
    )
    for name, owner, method in parts:
        setattr(owner, method, timed(name, getattr(owner, method)))
    for _ in range(steps):
        timed("whole step", trainer.take_step)()
    rest = zip(times["whole step"], *(times[name] for name, *_ in parts), strict=True)
    times["backward and clipping"] = [whole - sum(others) for whole, *others in rest]
    return times


class _Timer:
    """Wraps functions so that their seconds are noted."""

    def __init__(self, times: Times) -> None:
        self._times = times

    def __call__(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            made = function(*args, **options)
            self._times[name].append(time.perf_counter() - began)
            return made

        return run


def _gigaflops_of_the_machine(side: int = 2048) -> float:
    a = torch.rand(side, side)
    times: Times = defaultdict(list)
    for _ in range(5):
        _Timer(times)("product", torch.mm)(a, a)
    return 2e-9 * side**3 / min(times["product"])


def _print(times: Times, network_gflop: float = 0.0) -> None:
    whole = max(median(seconds) for seconds in times.values())
    for name, seconds in times.items():
        middle = median(seconds)
        line = f"{name:26}{middle * 1e3:9.1f} ms {middle / whole:7.1%}"
        if name == "network":
            line += f" {network_gflop / middle:7.0f} GFLOP/s"
        print(line)


if __name__ == "__main__":
    main()
