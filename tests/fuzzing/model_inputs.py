"""Broken model folders: cards and weights, their hash put right or not."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import torch

from napari_cmunet.model.card import CARD, ModelCard, Preprocessing, read_card
from napari_cmunet.model.network import CMUNet
from napari_cmunet.model.registry import WEIGHTS, load_model, save_model
from tests.fuzzing.mutations import EXTREMES, spoil, spoil_json, stranger
from tests.fuzzing.targets import MEGABYTE

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_TYPES = ("F16", "F32", "F64", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E8M0", "C64")
_TYPES += ("F4", "I16", "U64", "nonsense")


class ModelFolder:
    """``card.json`` and ``weights.safetensors``."""

    limit = 64 * MEGABYTE

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "model"
        torch.manual_seed(1)
        network = CMUNet(2)
        card = ModelCard("model", "artery", 2, Preprocessing(grid=64), parameters=1)
        save_model(self.folder, network.state_dict(), card)
        self._card = json.loads((self.folder / CARD).read_text(encoding="utf-8"))
        self._weights = (self.folder / WEIGHTS).read_bytes()

    def write(self, random: Random) -> None:
        card, weights = dict(self._card), self._weights
        kind = random.random()
        if kind < 0.6:
            weights = _other_weights(random, weights)
            if random.random() < 0.9:
                card["sha256"] = hashlib.sha256(weights).hexdigest()
            if random.random() < 0.1:
                card["width"] = random.choice((1, 3, 64, 128, 129))
        data = spoil_json(random, card) if kind > 0.5 else json.dumps(card).encode()
        (self.folder / CARD).write_bytes(data)
        (self.folder / WEIGHTS).write_bytes(weights)

    def read(self) -> None:
        read_card(self.folder)
        loaded = load_model(self.folder)
        assert loaded.card.preprocessing.grid > 0
        with torch.inference_mode():
            assert torch.isfinite(loaded.network(torch.zeros(1, 1, 32, 32))).all()

    def paths(self) -> list[Path]:
        return [self.folder / CARD, self.folder / WEIGHTS]


def _other_weights(random: Random, data: bytes) -> bytes:
    kind = random.randrange(5)
    if kind == 0:
        return spoil(random, data)
    length = int.from_bytes(data[:8], "little")
    header, numbers = json.loads(data[8 : 8 + length]), data[8 + length :]
    if kind == 1:
        made = spoil_json(random, header)
    elif kind == 2:  # values that are no numbers, or very large
        at = random.randrange(0, len(numbers), 2)
        odd = random.choice((b"\x00\x7e", b"\x00\x7c", b"\x00\xfc", b"\xff\x7b"))
        numbers = numbers[:at] + odd * random.choice((1, 50)) + numbers[at:]
        numbers = numbers[: len(data) - 8 - length]
        made = json.dumps(header).encode()
    else:
        for _ in range(random.choice((1, 1, 3))):
            name = random.choice(list(header))
            if not isinstance(header[name], dict):  # spoilt already
                continue
            header[name] = _other_tensor(random, header[name])
            if random.random() < 0.2:
                header[random.choice((name + "x", name.upper(), "__metadata__"))] = (
                    header.pop(name)
                )
        made = json.dumps(header).encode()
    return len(made).to_bytes(8, "little") + made + numbers


def _offsets(entry: dict[str, Any]) -> tuple[int, int]:
    """Of a tensor's bytes; any, where an earlier change has spoilt them."""
    try:
        begin, end = map(int, entry["data_offsets"])
    except (KeyError, TypeError, ValueError):
        return 0, 8
    return begin, end


def _other_tensor(random: Random, entry: dict[str, Any]) -> dict[str, Any]:
    made = dict(entry)
    field = random.choice(("dtype", "dtype", "shape", "shape", "data_offsets", "any"))
    if field == "dtype":
        made["dtype"] = random.choice(_TYPES)
        if random.random() < 0.5:  # of the same bytes, so that it is taken
            begin, end = _offsets(made)
            made["dtype"] = random.choice(
                ("U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0")
            )
            made["shape"] = [end - begin]
            if random.random() < 0.3:
                made["shape"] += [1] * 70
    elif field == "shape":
        shape = made.get("shape")
        shape = list(shape) if shape and isinstance(shape, list) else [1]
        choice = random.randrange(3)
        if choice == 0:
            shape = shape[::-1]
        elif choice == 1:
            shape[random.randrange(len(shape))] = random.choice(EXTREMES)
        else:
            shape.append(random.choice((0, 1)))
        made["shape"] = shape
    elif field == "data_offsets":
        made["data_offsets"] = [random.choice(EXTREMES) for _ in "ab"]
    else:
        return stranger(random)
    return made
