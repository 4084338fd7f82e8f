"""A mean of models is a model, and its card names what it is the mean of."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from benchmarks import average_models
from napari_cmunet.model.registry import load_model, save_model


def test_the_weights_are_the_mean_and_the_card_says_of_what(
    tmp_path, tiny_model, monkeypatch
):
    one = load_model(tiny_model)
    weights = one.network.state_dict()
    tripled = {k: 3 * v if v.is_floating_point() else v for k, v in weights.items()}
    other = save_model(tmp_path / "other", tripled, replace(one.card, name="other"))
    out = tmp_path / "mean"
    words = ["", tiny_model, tmp_path / "other", "-o", out, "--threshold", "0.7"]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    average_models.main()
    made = load_model(out)
    for name, value in made.network.state_dict().items():
        factor = 2 if value.is_floating_point() else 1
        torch.testing.assert_close(value, factor * weights[name], rtol=2e-3, atol=1e-4)
    assert (made.card.name, made.card.threshold) == ("mean", 0.7)
    assert made.card.metrics["mean_of"] == [
        [one.card.name, one.card.sha256],
        ["other", other.sha256],
    ]
