"""Profile one prediction and one training step, part by part.

    python -m benchmarks.profile_prediction [--model NAME] [--repeats 20] [--training 3]

Prints the median milliseconds of each part, its share, and GFLOP/s where it is the
network. The network as eager modules and as the predictor runs it alternate, so that
their ratio holds on a busy machine; "the machine" is a large matrix product.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.frames import PHANTOMS, list_frames, read_frame
from napari_cmunet.model.device import choose_device, tune_malloc
from napari_cmunet.model.inference import fuse_batchnorm
from napari_cmunet.model.network import CMUNet, artery_logit, flop_count
from napari_cmunet.model.postprocess import suppress_small_components
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.preprocess import prepare, restore
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
    print(f"the machine: {product:.0f} GFLOP/s, {torch.get_num_threads()} threads\n")
    _print(*profile_frame(model, args.repeats))
    if args.training:
        tune_malloc()
        print()
        _print(profile_training(model, args.training))


@torch.inference_mode()
def profile_frame(
    model: LoadedModel, repeats: int
) -> tuple[Times, dict[str, float], float, float]:
    """Times of the parts of a 512 x 512 frame, and GFLOP of the networks."""
    image, _ = read_frame(PHANTOMS, list_frames(PHANTOMS, "", 1)[0][0])
    predictor = Predictor(model, choose_device("cpu"))
    eager: Any = fuse_batchnorm(model.network)
    eager = eager.to(memory_format=torch.channels_last)
    times: Times = defaultdict(list)
    timed = _Timer(times)
    network = predictor._network
    for name in BLOCKS:
        block = getattr(network, name)
        block.forward = timed(f"  {name}", block.forward)
    for _ in range(repeats):
        x, geo = timed("prepare", prepare)(image, model.preprocessing)
        x = x.to(predictor.dtype, memory_format=torch.channels_last)
        timed("network, eager float32", eager)(x.float())
        logits = timed("network", network)(x)
        logit = artery_logit(logits)
        timed("small components", suppress_small_components)(logit)
        timed("restore", restore)(logit, geo)
    flop = flop_count(model.card.width, *geo.padded) / 1e9
    whole = sum(
        median(times[part])
        for part in ("prepare", "network", "small components", "restore")
    )
    flops = {"network": flop, "network, eager float32": flop}
    ratio = median(times["network, eager float32"]) / median(times["network"])
    return times, flops, whole, ratio


def profile_training(model: LoadedModel, steps: int) -> Times:
    """Times of the parts of a training step at the default batch."""
    labels = [
        Label(*read_frame(PHANTOMS, name), name=name)
        for name, _ in list_frames(PHANTOMS, "", 4)
    ]
    frames = prepare_labels(labels, model.preprocessing)
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


def _print(
    times: Times,
    flops: dict[str, float] | None = None,
    whole: float | None = None,
    ratio: float | None = None,
) -> None:
    whole = whole or median(times["whole step"])
    for name, seconds in times.items():
        middle = median(seconds)
        line = f"{name:26}{middle * 1e3:9.1f} ms {middle / whole:7.1%}"
        if flops and name in flops:
            line += f" {flops[name] / middle:7.0f} GFLOP/s"
        print(line)
    if ratio:
        print(f"the network is {ratio:.2f} times as fast as its eager modules")


if __name__ == "__main__":
    main()
