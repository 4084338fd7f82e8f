"""Published checkpoints become models: the layouts, and what is refused."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_cmunet.errors import ModelError
from napari_cmunet.model import published
from napari_cmunet.model.card import card_to_json, read_card
from napari_cmunet.model.importer import (
    ImportReport,
    import_checkpoint,
    read_checkpoint,
)
from napari_cmunet.model.registry import load_model
from tests.model import checkpoint_makers as make
from tests.model.checkpoint_makers import refusal

if TYPE_CHECKING:
    from pathlib import Path

HALF = {"rtol": 1e-3, "atol": 1e-6}  # model folders hold half precision
FIRST = "down_conv1.double_conv.double_conv.0.weight"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def assert_loaded(path: Path, source: nn.Module, parts: str) -> ImportReport:
    """The model made of a file computes with the very weights that were saved."""
    folder, report = import_checkpoint(path, "made")
    made = load_model(folder)
    wanted = source.state_dict()
    for name, value in made.network.state_dict().items():
        if name.startswith("conv_last"):
            part = "head"
        else:
            part = "decoder" if make.is_decoder(name) else "encoder"
        if part in parts:
            torch.testing.assert_close(value, wanted[name].to(value.dtype), **HALF)
    assert made.card.kind == report.kind == ("artery" if "head" in parts else "ssl")
    assert made.report.head_loaded == ("head" in parts)
    assert made.card.width == report.width == make.WIDTH
    assert made.card.preprocessing.grid == 256
    assert str(report) in (folder / "README.md").read_text(encoding="utf-8")
    return report


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_plain_state_dict(tmp_path: Path, archive: bool) -> None:
    source, path = make.network(), tmp_path / "plain.pth"
    torch.save(source.state_dict(), path, _use_new_zipfile_serialization=archive)
    report = assert_loaded(path, source, "encoder decoder head")
    assert report.layout == "a plain state dict"
    assert str(report).startswith(
        "134 of 134 encoder and decoder tensors from plain.pth, with conv_last.\n"
    )
    assert report.new == report.left_out == report.notes == ()


@pytest.mark.parametrize("protocol", [1, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_other_pickle_protocols_are_refused(
    tmp_path: Path, protocol: int, archive: bool
) -> None:
    torch.save(
        make.network().state_dict(),
        tmp_path / "x.pth",
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=archive,
    )
    reason = refusal(tmp_path / "x.pth")
    assert "pickle protocol" in reason or "not a PyTorch checkpoint" in reason


@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_whole_module_of_an_old_pytorch_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    make.save_whole(path, make.network(), _use_new_zipfile_serialization=False)
    assert "save its state_dict instead" in refusal(path)


def test_whole_pickled_module(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "whole.pth"
    make.save_whole(path, source)
    report = assert_loaded(path, source, "encoder decoder head")
    assert report.layout == "a whole pickled module"


@pytest.mark.slow
def test_whole_pickled_module_in_data_parallel(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "whole.pth"
    make.save_whole(path, source, wrap=True)
    assert_loaded(path, source, "encoder decoder head")


def test_data_parallel(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "parallel.pth"
    torch.save(nn.DataParallel(source).state_dict(), path)
    report = assert_loaded(path, source, "encoder decoder head")
    assert report.layout == "a state dict with 'module.' (DataParallel)"


@pytest.mark.slow
def test_state_dict_in_a_dict(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "training.pth"
    torch.save({"epoch": 4, "state_dict": source.state_dict()}, path)
    assert_loaded(path, source, "encoder decoder head")


@pytest.mark.slow
def test_mmengine(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "epoch_300.pth"
    make.save_mmengine(path, source)
    report = assert_loaded(path, source, "encoder decoder")
    assert report.layout == "a CM-UNet pre-training (mmengine)"
    assert report.new == ()
    assert report.notes == ("Its conv_last is a pre-training's and was left out.",)
    # 70 of the target's encoder, 66 of the feature decoder, a projector, conv_last.
    assert len(report.left_out) == 70 + 66 + 1 + 2


def test_spark(tmp_path: Path) -> None:
    source, path = make.network(out_classes=1), tmp_path / "spark.pth"
    make.save_spark(path, source)
    report = assert_loaded(path, source, "encoder decoder")
    assert report.layout == "a SparK pre-training"
    assert report.new == ()
    assert "norm_black" in report.left_out


def test_moco(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "moco.ckpt"
    make.save_moco(path, source)
    report = assert_loaded(path, source, "encoder")
    assert report.layout == "a MoCo pre-training (Lightning)"
    assert report.new == ("decoder",)
    assert "fc.weight" in report.left_out
    assert "queue" in report.left_out
    assert "70 of 134 encoder and decoder tensors" in str(report)
    assert "conv_last new" in str(report)
    assert "New, with random values (seed 0): decoder." in str(report)


@pytest.mark.parametrize("name", ["genesis.pt", "mae.pt"])
def test_models_genesis_and_mae(tmp_path: Path, name: str) -> None:
    source, path = make.network(out_classes=1), tmp_path / name
    make.save_genesis(path, source)
    report = assert_loaded(path, source, "encoder decoder")
    assert report.layout == "a Models Genesis or MAE pre-training"
    assert report.new == ()


def test_new_tensors_are_the_same_every_time(tmp_path: Path) -> None:
    path = tmp_path / "moco.ckpt"
    make.save_moco(path, make.network())
    torch.manual_seed(1)
    first = read_checkpoint(path).network.state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = read_checkpoint(path).network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


def test_old_files_without_batch_counters(tmp_path: Path) -> None:
    state = make.network().state_dict()
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in state.items() if "num_batches" not in k}, path)
    report = read_checkpoint(path).report
    assert report.kind == "artery"
    assert report.new == ()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions(tmp_path: Path, dtype: torch.dtype) -> None:
    source = make.network().to(dtype)
    torch.save(source.state_dict(), tmp_path / "x.pth")
    made = read_checkpoint(tmp_path / "x.pth").network.state_dict()
    for name, value in source.state_dict().items():
        assert torch.equal(made[name], value.to(made[name].dtype)), name


def test_tensors_that_are_views_of_one_storage(tmp_path: Path) -> None:
    source = make.network()
    state = source.state_dict()
    row = torch.cat([torch.zeros(3), state[FIRST].flatten(), torch.ones(5)])
    state[FIRST] = row[3 : 3 + 18].view(2, 1, 3, 3)
    turned = "up_conv4.up_sample.weight"
    state[turned] = state[turned].transpose(0, 1).contiguous().transpose(0, 1)
    state["conv_last.bias"] = torch.full((1,), 2.5).expand(2)
    torch.save(state, tmp_path / "x.pth")
    made = read_checkpoint(tmp_path / "x.pth").network.state_dict()
    assert all(torch.equal(made[name], value) for name, value in state.items())
    assert made["conv_last.bias"].tolist() == [2.5, 2.5]


def test_weights_beyond_half_precision(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = make.network().state_dict()
    torch.save(state | {"conv_last.bias": torch.tensor([1e5, 0])}, path)
    with pytest.raises(ModelError, match=r"conv_last\.bias does not fit"):
        import_checkpoint(path, "made")
    torch.save(state, path)
    import_checkpoint(path, "made")  # nothing is in the way


def altered(tmp_path: Path, change: Any) -> Path:
    state = dict(make.network().state_dict())
    change(state)
    torch.save(state, tmp_path / "altered.pth")
    return tmp_path / "altered.pth"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(tmp_path: Path, value: float) -> None:
    path = altered(tmp_path, lambda s: s["conv_last.weight"].view(-1)[1:2].fill_(value))
    assert "conv_last.weight is not finite" in refusal(path)


def test_negative_variance(tmp_path: Path) -> None:
    name = "double_conv.double_conv.1.running_var"
    assert "negative" in refusal(altered(tmp_path, lambda s: s[name].neg_()))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param(
            lambda s: s.update({FIRST: torch.zeros(2, 3, 3, 3)}),
            "another architecture",
            id="colour",
        ),
        pytest.param(
            lambda s: s.update({FIRST: torch.zeros(())}),
            "another architecture",
            id="scalar",
        ),
        pytest.param(
            lambda s: s.update({FIRST: torch.zeros(200, 1, 3, 3)}),
            "another architecture",
            id="too wide",
        ),
        pytest.param(
            lambda s: s.update({FIRST: torch.zeros(4, 1, 3, 3)}),
            "a CM-UNet of width 4 has",
            id="a width that does not fit",
        ),
        pytest.param(
            lambda s: s.pop("down_conv2.double_conv.double_conv.0.weight"),
            "59 of 60 tensors of CM-UNet's encoder",
            id="a tensor lost",
        ),
        pytest.param(
            lambda s: [s.pop(k) for k in list(s) if "up_sample" in k],
            "48 of 56 tensors of CM-UNet's decoder",
            id="bilinear decoder",
        ),
        pytest.param(
            lambda s: s.update({"attention4.weight": torch.zeros(1)}),
            "it has attention4.weight, which CM-UNet does not",
            id="attention",
        ),
        pytest.param(
            lambda s: [s.pop(k) for k in list(s) if k.startswith("down_conv")],
            "no down_conv1",
            id="decoder alone",
        ),
        pytest.param(lambda s: s.clear(), "holds no network", id="empty"),
    ],
)
def test_other_architectures(tmp_path: Path, change: Any, reason: str) -> None:
    assert reason in refusal(altered(tmp_path, change))


@pytest.mark.parametrize(
    "content",
    [
        [1, 2],
        "text",
        {"state_dict": 3},
        {"meta": {"mmengine_version": "1"}},
        {"module": {}},
        {"state_dict": {"encoder_q.x": torch.zeros(1)}},
        {"a": {"b": torch.zeros(1)}},
        nn.Linear(2, 2),
        nn.Sequential(),
        torch.zeros(3),
    ],
)
def test_no_network(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "x.pth")
    assert "is refused: it " in refusal(tmp_path / "x.pth")


def test_nothing_is_written_but_the_model(tmp_path: Path, home: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(make.network().state_dict(), path)
    import_checkpoint(path, "made")
    written = sorted(
        p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()
    )
    folder = "home/models/made"
    assert written == [
        *(f"{folder}/{n}" for n in ("README.md", "card.json", "weights.safetensors")),
        "x.pth",
    ]


def test_names(tmp_path: Path) -> None:
    path = tmp_path / "Dr. Müller's best (2).pth"
    torch.save(make.network().state_dict(), path)
    folder, _ = import_checkpoint(path)
    assert re.fullmatch(r"Dr\.-M-ller-s-best-2", folder.name)
    with pytest.raises(ModelError, match="already"):
        import_checkpoint(path)
    import_checkpoint(path, force=True)
    for name in ("../x", "/x", "", "a/b", "nul", "COM1.x", "x.", "-x", "x" * 65, "a\n"):
        with pytest.raises(ModelError, match="will not do"):
            import_checkpoint(path, name)
    with pytest.raises(ModelError, match="came with the program"):
        import_checkpoint(path, "cmunet-artery", force=True)


def test_a_known_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import hashlib

    path = tmp_path / "x.pth"
    make.save_whole(path, make.network())
    assert "none of the known" in str(read_checkpoint(path).report)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = published.PublishedFile("ratio_79-1", "model_genesis_lr0.001.pth", digest)
    monkeypatch.setattr(published, "PUBLISHED", (known,))
    folder, report = import_checkpoint(path)
    assert folder.name == "published-model-genesis-79-1"
    assert "Known file: model_genesis_lr0.001.pth, ratio_79-1." in str(report)
    card = read_card(folder)
    assert card.licence == "none stated by the authors"
    assert card.labels == 18
    assert digest in card.data
    assert str(tmp_path) not in json.dumps(card_to_json(card))


def test_the_published_files_are_twelve_and_pinned() -> None:
    names = {p.name for p in published.PUBLISHED}
    hashes = {p.sha256 for p in published.PUBLISHED}
    assert len(names) == len(hashes) == 12
    assert all(re.fullmatch("[0-9a-f]{64}", h) for h in hashes)
    first = published.find_published("published-cmunet-79-1")
    assert first.url == (
        "https://media.githubusercontent.com/media/CamilleChallier/"
        "Contrastive-Masked-UNet/cdbc615a51ca36ac3712e30bc0d9306a13033c70/"
        "Finetuning/models_checkpoints/ratio_79-1/cmunet_lr0.001.pth"
    )
    with pytest.raises(ModelError, match="published-unet-50-30"):
        published.find_published("cmunet")
