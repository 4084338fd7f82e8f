"""Find CM-UNet's tensors in the seven known checkpoint layouts.

The layouts follow how the published code saves its networks. Each yields tensors by
CM-UNet's parameter names, and whether the last convolution segments (fine-tuned) or
reconstructs the image (pre-trained, dropped).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from napari_cmunet.model.pickle_screen import RefusedError

HEAD = "conv_last."
_MAX_MODULES = 10_000
_MAX_PARTS = 100_000
_MAX_NAME = 1000
_MOST_WRAPPERS = 4
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel, torch.compile


@dataclass(frozen=True)
class Found:
    """What a checkpoint holds for CM-UNet."""

    layout: str  # in words
    #: By CM-UNet's parameter names, as far as the layout tells; others too.
    tensors: dict[str, torch.Tensor]
    #: Tensors that belong to other parts of the training, by their own names.
    beside: tuple[str, ...] = ()
    #: Whether a last convolution, if there is one, can be one that segments.
    head_segments: bool = False


def find_tensors(content: Any) -> Found:
    """Recognise the layout of a checkpoint's content.

    Raises
    ------
    RefusedError
        If it is none of the known ones.
    """
    if "_modules" in getattr(content, "__dict__", ()):
        state = _module_state(content)
        return Found("a whole pickled module", _unwrapped(state), head_segments=True)
    if not isinstance(content, dict):
        raise RefusedError("it holds no network")
    content = _plain(content)
    meta, state = content.get("meta"), content.get("state_dict")
    if isinstance(content.get("module"), dict):
        return _parts(
            "a SparK pre-training",
            _tensors(content["module"]),
            ("sparse_encoder.sp_cnn.", "dense_decoder."),
        )
    if isinstance(meta, dict) and "mmengine_version" in _plain(meta):
        return _parts(
            "a CM-UNet pre-training (mmengine)",
            _tensors(state),
            ("backbone.", "pixel_decoder."),
        )
    if isinstance(state, dict):
        tensors = _tensors(state)
        if any(name.startswith("encoder_q.") for name in tensors):
            return _parts("a MoCo pre-training (Lightning)", tensors, ("encoder_q.",))
        if any(name.startswith("module.") for name in tensors):
            return _parts("a Models Genesis or MAE pre-training", tensors, ("module.",))
        return Found(
            "a state dict under 'state_dict'", _unwrapped(tensors), head_segments=True
        )
    tensors = _tensors(content)
    if any(name.startswith("module.") for name in tensors):
        layout = "a state dict with 'module.' (DataParallel)"
    else:
        layout = "a plain state dict"
    return Found(layout, _unwrapped(tensors), head_segments=True)


def _plain(made: dict) -> dict:
    """A dict whose methods are dict's own, not attributes that a file has set."""
    return dict(dict.items(made))


def _tensors(state: Any) -> dict[str, torch.Tensor]:
    """The tensors of a dict, by name; what else is in it is left out."""
    if not isinstance(state, dict):
        raise RefusedError("it holds no network")
    found = {
        name: value.detach()
        for name, value in _plain(state).items()
        if isinstance(value, torch.Tensor)
        and isinstance(name, str)
        and len(name) <= _MAX_NAME
    }
    if not found:
        raise RefusedError("it holds no network")
    return found


def _parts(
    layout: str, tensors: dict[str, torch.Tensor], prefixes: tuple[str, ...]
) -> Found:
    """Only what one of the prefixes names, which is taken away."""
    found: dict[str, torch.Tensor] = {}
    beside = []
    for name, value in tensors.items():
        prefix = next((p for p in prefixes if name.startswith(p)), None)
        if prefix is None:
            beside.append(name)
            continue
        own = name.removeprefix(prefix)
        if own in found:
            raise RefusedError(f"it holds two tensors for {own[:80]!r}")
        found[own] = value
    return Found(layout, found, tuple(beside))


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names without the prefix that a wrapper gave to all of them."""
    for _ in range(_MOST_WRAPPERS):
        prefix = next(
            (p for p in _WRAPPERS if all(n.startswith(p) for n in tensors)), None
        )
        if prefix is None or not tensors:
            break
        tensors = {n.removeprefix(prefix): v for n, v in tensors.items()}
    return tensors


def _module_state(module: Any) -> dict[str, torch.Tensor]:
    """The state dict of a module that was pickled whole, from its stand-in."""
    tensors: dict[str, torch.Tensor] = {}
    waiting: list[tuple[str, Any]] = [("", module)]
    modules = parts = 0
    while waiting:
        prefix, stand_in = waiting.pop()
        state = getattr(stand_in, "__dict__", {})
        groups = [_group(state, kind) for kind in ("_parameters", "_buffers")]
        children = _group(state, "_modules")
        # Modules that contain each other, or one in many places, have no end.
        modules += 1
        parts += sum(map(len, groups)) + len(children)
        if modules > _MAX_MODULES or parts > _MAX_PARTS or len(prefix) > _MAX_NAME:
            raise RefusedError("it has too many parts to be a CM-UNet")
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        for group in groups:
            for name, value in group.items():
                if isinstance(value, torch.Tensor) and name not in passing:
                    tensors[f"{prefix}{name}"] = value.detach()
        for name, value in children.items():
            if value is not None:
                waiting.append((f"{prefix}{name}.", value))
    if not tensors:
        raise RefusedError("it holds no network")
    return tensors


def _group(state: Any, kind: str) -> dict[str, Any]:
    """The parameters, buffers or modules of one module, by name."""
    group = _plain(state[kind]) if isinstance(state.get(kind), dict) else None
    if group is None or any(
        not isinstance(name, str) or len(name) > _MAX_NAME for name in group
    ):
        raise RefusedError("it is damaged (a module without its parts)")
    return group
