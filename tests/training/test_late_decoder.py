"""Training the late decoder on cached features: the same network, cheaper."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from napari_cmunet.model.network import CMUNet
from napari_cmunet.training.augment import NO_AUGMENTATION
from napari_cmunet.training.config import FinetuneConfig
from napari_cmunet.training.dataset import REVIEWED, WHOLE, LabelledFrames
from napari_cmunet.training.events import Finished
from napari_cmunet.training.late_decoder import (
    BORDER,
    MOST_VIEWS,
    FeatureBatches,
    LateDecoder,
    early_features,
    feature_views,
)
from napari_cmunet.training.loop import finetune

CPU = torch.device("cpu")
CONFIG = FinetuneConfig(
    steps=4, batch=4, trained_blocks=2, views=2, crop=32, frozen_batchnorm=True
)


def network() -> CMUNet:
    torch.manual_seed(0)
    return CMUNet(2).eval()


def frames(count: int = 3, side: int = 64) -> LabelledFrames:
    x = torch.randn(count, 1, side, side, generator=torch.Generator().manual_seed(0))
    maps = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    maps[:, REVIEWED] = WHOLE
    maps[:, [0, 2], 20:30] = WHOLE
    names = tuple(f"p{i}" for i in range(count))
    return LabelledFrames(x.half(), maps, names, names)


def run(training):
    events = []
    while True:
        try:
            events.append(next(training))
        except StopIteration as end:
            return events, end.value


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.slow
def test_features_and_late_decoder_make_up_the_network(blocks):
    net, x = network(), torch.randn(2, 1, 64, 64)
    with torch.no_grad():
        logits = LateDecoder(net, blocks)(*early_features(net, x, blocks))
        assert torch.allclose(logits, net(x), atol=1e-6)


@pytest.mark.parametrize("blocks", [1, 2])
def test_only_the_late_decoder_is_trained(blocks):
    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    config = replace(CONFIG, trained_blocks=blocks)
    events, result = run(finetune(net, frames(), config))
    changed = {k for k, v in result.weights.items() if not torch.equal(v, before[k])}
    late = {"up_conv1", "conv_last"} | ({"up_conv2"} if blocks == 2 else set())
    assert {name.split(".")[0] for name in changed} == late
    assert not any("running" in name for name in changed)
    assert isinstance(events[-1], Finished)
    assert result.steps == 4
    CMUNet(2).load_state_dict(result.weights)


def test_a_crop_of_features_gives_the_logits_of_the_whole_there():
    net = network()
    config = replace(CONFIG, augmentation=NO_AUGMENTATION, views=1)
    views = feature_views(net, frames(), config, CPU)
    late = LateDecoder(net, 2)
    inputs, maps = FeatureBatches(views, config, CPU).draw(12)
    with torch.no_grad():
        crops = late(*inputs)
        whole = late(*(level.float() for level in views.levels))
    inside = slice(BORDER, -BORDER)
    for crop, reviewed in zip(crops, maps[:, REVIEWED], strict=True):
        assert reviewed[inside, inside].min() > 0
        assert reviewed[:BORDER].max() == 0
        gaps = [
            (view[:, top : top + 32, left : left + 32] - crop)[:, 8:-8, 8:-8].abs()
            for view in whole
            for top in range(0, 36, 4)
            for left in range(0, 36, 4)
        ]
        assert min(float(gap.max()) for gap in gaps) < 1e-4


def test_a_subset_shares_the_features_and_knows_its_labels():
    views = feature_views(network(), frames(), CONFIG, CPU)
    part = views.subset([2, 0])
    assert len(part) == 2
    assert part.patients == ("p2", "p0")
    assert part.rows.tolist() == [0, 1, 4, 5]
    assert part.labels.tolist() == [1, 1, 0, 0]
    assert part.levels[0].data_ptr() == views.levels[0].data_ptr()
    drawn = FeatureBatches(part, CONFIG, CPU)
    drawn.draw(8)
    assert set(drawn._queue) <= {0, 1, 4, 5}


def test_many_labels_have_fewer_views_each():
    assert MOST_VIEWS >= 18 * FinetuneConfig.views
    views = feature_views(network(), frames(40, 32), CONFIG, CPU)
    assert len(views.rows) == 40


def test_same_seed_same_weights():
    one, two = (run(finetune(network(), frames(), CONFIG))[1].weights for _ in "ab")
    assert all(torch.equal(one[k], two[k]) for k in one)
    other = run(finetune(network(), frames(), replace(CONFIG, seed=1)))[1].weights
    assert not torch.equal(one["conv_last.weight"], other["conv_last.weight"])


def test_the_start_counts_for_some_labels():
    net = network()
    start = net.state_dict()["conv_last.weight"].clone()
    free = run(finetune(network(), frames(), CONFIG))[1].weights["conv_last.weight"]
    config = replace(CONFIG, wise_ft_prior=3.0)
    kept = run(finetune(net, frames(), config))[1].weights["conv_last.weight"]
    np.testing.assert_allclose(kept, (free + start) / 2, atol=1e-6)
