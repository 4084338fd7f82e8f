"""Each layout at the published size. Slow: set NAPARI_CMUNET_FULL_SIZE to run it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_cmunet.model.importer import import_checkpoint
from napari_cmunet.model.registry import load_model
from tests.model import checkpoint_makers as make

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(
    not os.environ.get("NAPARI_CMUNET_FULL_SIZE"), reason="takes half a minute"
)

LAYOUTS: dict[str, tuple[Callable[[Path, Any], None], str, int]] = {
    "plain": (lambda p, n: torch.save(n.state_dict(), p), "artery", 134),
    "module.": (
        lambda p, n: torch.save(nn.DataParallel(n).state_dict(), p),
        "artery",
        134,
    ),
    "mmengine": (make.save_mmengine, "ssl", 134),
    "spark": (make.save_spark, "ssl", 134),
    "moco": (make.save_moco, "ssl", 70),
    "genesis": (make.save_genesis, "ssl", 134),
    "whole module": (make.save_whole, "artery", 134),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_full_size(
    layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    save, kind, loaded = LAYOUTS[layout]
    source, path = make.network(width=64), tmp_path / "full.pth"
    save(path, source)
    began = time.monotonic()
    folder, report = import_checkpoint(path)
    seconds = time.monotonic() - began
    print(f"{layout}: {path.stat().st_size / 1e6:.2f} MB in {seconds:.1f} s")
    made = load_model(folder)
    assert made.card.parameters == 31_042_434
    assert (report.kind, report.loaded.loaded, report.width) == (kind, loaded, 64)
    wanted = source.state_dict()
    for name, value in made.network.state_dict().items():
        if not (name.startswith("conv_last") and kind == "ssl") and not (
            layout == "moco" and make.is_decoder(name)
        ):
            torch.testing.assert_close(value, wanted[name], rtol=1e-3, atol=1e-6)
