"""One step of fine-tuning: draw a batch, backpropagate, update, average."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from napari_cmunet.model.device import (
    is_out_of_memory,
    training_autocast,
    training_layout,
)
from napari_cmunet.training.config import wise_ft_alpha
from napari_cmunet.training.dataset import LabelBatches
from napari_cmunet.training.late_decoder import (
    FeatureBatches,
    FeatureViews,
    LateDecoder,
)
from napari_cmunet.training.losses import map_loss
from napari_cmunet.training.optim import (
    WarmupCosineLR,
    adamw,
    averaged_model,
    batch_norms,
    interpolate,
    running_statistics_kept,
)

if TYPE_CHECKING:
    from torch import nn

    from napari_cmunet.model.network import CMUNet
    from napari_cmunet.training.config import FinetuneConfig
    from napari_cmunet.training.dataset import LabelledFrames

    Inputs = tuple[torch.Tensor, ...]

LEAST_WARMUP = 12
"""Steps of warm-up, if there is one at all, however short the training."""


class Trainer:
    """Network, optimiser, schedule, averaged network and the drawing of batches.

    Parameters
    ----------
    network : CMUNet
        Trained in place.
    train : LabelledFrames or FeatureViews
        With features, the late decoder alone is trained.
    auxiliary : LabelledFrames or None
        Mixed into each batch; not with features.
    steps : int
        Of the whole training, for the schedule.

    Attributes
    ----------
    step : int
        Steps made so far.
    batch, parts : int
        Views in a step, and the parts that they are processed in.
    wise_ft_alpha : float
        Share of the starting weights in :meth:`model`.
    """

    def __init__(
        self,
        network: CMUNet,
        train: LabelledFrames | FeatureViews,
        auxiliary: LabelledFrames | None,
        config: FinetuneConfig,
        device: torch.device,
        steps: int,
    ) -> None:
        self.config, self.device = config, device
        self._layout = training_layout(device)
        network.to(device, memory_format=self._layout)  # type: ignore[call-overload]
        self.network: nn.Module = network
        self._batches: LabelBatches | FeatureBatches
        if isinstance(train, FeatureViews):
            self.network = LateDecoder(network, config.trained_blocks)
            self._batches = FeatureBatches(train, config, device)
        else:
            self._batches = LabelBatches(train, auxiliary, config, device)
        self._whole = network
        self.average = averaged_model(self.network, config.ema)
        self.wise_ft_alpha = wise_ft_alpha(config.wise_ft_prior, len(train))
        self._start = (
            copy.deepcopy(self.network.state_dict()) if self.wise_ft_alpha else {}
        )
        self.step, self.batch, self.parts = 0, config.batch, 1
        self.optimiser = adamw(
            self.network.parameters(), config.learning_rate, config.weight_decay
        )
        self.schedule = WarmupCosineLR(
            self.optimiser,
            steps,
            config.warmup,
            LEAST_WARMUP if config.warmup else 1,
            constant=config.constant_rate,
        )
        self._drawn: tuple[Inputs, torch.Tensor] | None = None

    @property
    def steps(self) -> int:
        """Steps of the whole training; may be changed."""
        return self.schedule.total_steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self.schedule.total_steps = steps

    def take_step(self) -> torch.Tensor | None:
        """Make a step.

        Returns
        -------
        scalar tensor or None
            The loss, still on the device; None if memory ran out, after which the
            next call tries the same batch in smaller parts.
        """
        try:
            return self._take_step()
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc) or self.parts >= self.batch:
                raise
        self.parts = min(self.parts * 2, self.batch)
        self.optimiser.zero_grad(set_to_none=True)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return None

    def model(self) -> CMUNet:
        """The averaged network, interpolated with the starting weights (WiSE-FT)."""
        weights = self.average.module.state_dict()
        if self.wise_ft_alpha:
            weights = interpolate(weights, self._start, self.wise_ft_alpha)
        network = copy.deepcopy(self._whole).eval().requires_grad_(False)
        network.load_state_dict(weights, strict=self.network is self._whole)
        return network

    def _take_step(self) -> torch.Tensor:
        self.network.train()
        if self.config.frozen_batchnorm:
            for layer in batch_norms(self.network):
                layer.eval()
        self.optimiser.zero_grad(set_to_none=True)
        # Kept until the step is made, to be tried again in smaller parts.
        self._drawn = self._drawn or self._batches.draw(self.batch)
        loss = self._backward(*self._drawn)
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.step += 1
        self.schedule.step()
        self._drawn = None
        # A gradient that is not finite spoils the weights even where the loss is.
        return torch.where(norm.isfinite(), loss, norm)

    def _backward(self, inputs: Inputs, maps: torch.Tensor) -> torch.Tensor:
        """Loss of the batch; the gradients are left in the network's parameters."""
        if self.parts == 1:
            loss = self._loss(self._logits(inputs), maps)
            loss.backward()
            return loss.detach()
        # The loss is not a sum over frames: its gradient at all logits comes first,
        # then the activations of one part at a time are held in memory.
        with torch.no_grad(), running_statistics_kept(self.network):
            parts = [self._logits(x).float() for x in self._in_parts(inputs)]
        logits = torch.cat(parts).requires_grad_()
        loss = self._loss(logits, maps)
        (gradient,) = torch.autograd.grad(loss, logits)
        for x, of_part in zip(
            self._in_parts(inputs), gradient.chunk(self.parts), strict=True
        ):
            part = self._logits(x)
            part.backward(of_part.to(part.dtype))
        return loss.detach()

    def _in_parts(self, inputs: Inputs) -> list[Inputs]:
        return list(zip(*(x.chunk(self.parts) for x in inputs), strict=True))

    def _logits(self, inputs: Inputs) -> torch.Tensor:
        with training_autocast(self.device):
            return self.network(*(x.to(memory_format=self._layout) for x in inputs))

    def _loss(self, logits: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
        return map_loss(logits, maps, skeleton_weight=self.config.skeleton_weight)
