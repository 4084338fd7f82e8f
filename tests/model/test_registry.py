"""Model folders: whole or refused, by name, and nothing in them ever runs."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load, save

from napari_cmunet.errors import ModelError, UnknownModelError, WriteError
from napari_cmunet.model import registry as models
from napari_cmunet.model.card import (
    CARD,
    ModelCard,
    Postprocessing,
    Preprocessing,
    card_to_json,
    is_model_name,
    name_for,
    read_card,
)
from napari_cmunet.model.network import CMUNet, parameter_count
from napari_cmunet.model.registry import (
    WEIGHTS,
    find_model,
    list_models,
    load_model,
    load_weights,
    save_model,
)

if TYPE_CHECKING:
    from pathlib import Path

PREPROCESSING = Preprocessing(grid=48)


def weights_of(width: int = 2, seed: int = 0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return CMUNet(width).state_dict()


def card_of(**values) -> ModelCard:
    given = {"name": "a-model", "kind": "artery", "width": 2}
    return ModelCard(**(given | {"preprocessing": PREPROCESSING} | values))


@pytest.fixture
def folder(tmp_path) -> Path:
    """A sound model of width 2."""
    save_model(tmp_path / "a-model", weights_of(), card_of())
    return tmp_path / "a-model"


@pytest.fixture
def homes(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """Empty places for bundled models and for the user's own."""
    bundled, own = tmp_path / "bundled", tmp_path / "home" / "models"
    bundled.mkdir()
    own.mkdir(parents=True)
    monkeypatch.setattr(models, "bundled_models_folder", lambda: bundled)
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(own.parent))
    return bundled, own


def edit_card(folder: Path, **changes) -> None:
    values = json.loads((folder / CARD).read_text())
    (folder / CARD).write_text(json.dumps(values | changes))


def put_weights(folder: Path, data: bytes | dict) -> None:
    """Other weights, with a card that vouches for them."""
    data = data if isinstance(data, bytes) else save(data)
    (folder / WEIGHTS).write_bytes(data)
    edit_card(folder, sha256=hashlib.sha256(data).hexdigest())


# There and back


def test_round_trip_in_half_precision(folder):
    loaded = load_model(folder)
    weights = weights_of()
    for name, value in loaded.network.state_dict().items():
        assert torch.equal(value, weights[name].half().to(value.dtype))
    assert not loaded.network.training
    assert loaded.card.preprocessing == Preprocessing(grid=48)
    assert {v.dtype for v in load((folder / WEIGHTS).read_bytes()).values()} == {
        torch.float16,
        torch.int64,
    }
    assert loaded.card == read_card(folder)
    assert sorted(p.name for p in folder.iterdir()) == [CARD, WEIGHTS]


def test_saving_gives_the_card_with_the_hash_of_what_was_written(folder):
    card = save_model(folder, weights_of(seed=1), card_of(labels=18))
    assert card.sha256 == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert read_card(folder) == card
    assert load_model(folder).card.labels == 18


def test_the_hash_tells_models_of_the_same_weights_apart(tmp_path):
    cards = [card_of(), card_of(), card_of(threshold=0.8)]
    cards.append(card_of(preprocessing=Preprocessing(grid=256)))
    made = [
        save_model(tmp_path / f"{number}", weights_of(), card).sha256
        for number, card in enumerate(cards)
    ]
    assert made[0] == made[1]
    assert len(set(made)) == 3
    assert load_model(tmp_path / "3").card.preprocessing.grid == 256


def test_receipt_says_what_was_loaded(folder):
    text = "134 of 134 encoder and decoder tensors from a-model, with conv_last"
    assert str(load_model(folder).report) == text


def test_card_is_plain_json_with_all_that_the_readme_promises(folder):
    values = json.loads((folder / CARD).read_text())
    assert values == card_to_json(read_card(folder))
    assert {"name", "kind", "width", "parameters", "parent", "parent_sha256"} <= set(
        values
    )
    assert {"preprocessing", "data", "licence", "labels", "metrics"} <= set(values)
    assert {"sha256", "program", "created"} <= set(values)


@pytest.mark.slow
def test_a_published_width_loads(tmp_path):
    save_model(tmp_path / "m", weights_of(64), card_of(width=64))
    assert parameter_count(load_model(tmp_path / "m").network) == 31_042_434


def test_trained_weights_of_any_layout_are_saved(tmp_path):
    network = CMUNet(2).to(memory_format=torch.channels_last)
    save_model(tmp_path / "m", network.state_dict(), card_of())
    x = torch.randn(1, 1, 16, 16)
    with torch.inference_mode():
        torch.testing.assert_close(
            load_model(tmp_path / "m").network(x), network.eval()(x), atol=2e-3, rtol=0
        )


# Damage


def test_one_altered_byte_is_noticed(folder):
    data = bytearray((folder / WEIGHTS).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / WEIGHTS).write_bytes(data)
    with pytest.raises(ModelError, match=r"'a-model'.*altered.*[Ii]mport"):
        load_model(folder)
    with pytest.raises(ModelError, match="a-model"):
        load_model(folder)


@pytest.mark.parametrize("keep", [0, 5, 1000, -1])
def test_truncated_weights(folder, keep):
    data = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(data[:keep])
    with pytest.raises(ModelError, match=r"'a-model'.*truncated"):
        load_model(folder)


def test_missing_weights(folder):
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match=f"'a-model' is incomplete: {WEIGHTS}"):
        load_model(folder)


def test_missing_card(folder):
    (folder / CARD).unlink()
    with pytest.raises(ModelError, match=f"'a-model' is not a model: it has no {CARD}"):
        load_model(folder)


def test_weights_that_are_a_folder(folder):
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()
    with pytest.raises(ModelError, match=r"'a-model'.*cannot be read"):
        load_model(folder)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        struct.pack("<Q", 2**60),
        struct.pack("<Q", 4) + b"null",
        struct.pack("<Q", 2) + b"{",
    ],
)
def test_vouched_for_rubbish(folder, header):
    put_weights(folder, header)
    with pytest.raises(ModelError, match=r"'a-model'.*is damaged"):
        load_model(folder)


@pytest.mark.parametrize("dtype", ["F4", "F8_E4M3", "F8_E8M0", "C64", "BOOL", "I32"])
def test_tensors_of_a_type_that_no_network_has(folder, dtype):
    tensors = load((folder / WEIGHTS).read_bytes())
    data = save({k: v for k, v in tensors.items() if k != "conv_last.bias"})
    (size,) = struct.unpack("<Q", data[:8])
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    extra = {"F4": 1, "C64": 16, "I32": 8}.get(dtype, 2)
    span = [len(body), len(body) + extra]
    header["conv_last.bias"] = {"dtype": dtype, "shape": [2], "data_offsets": span}
    head = json.dumps(header).encode()
    put_weights(folder, struct.pack("<Q", len(head)) + head + body + bytes(extra))
    with pytest.raises(ModelError, match="'a-model'"):
        load_model(folder)


def test_another_architecture_is_named(folder):
    put_weights(folder, {"layer1.0.conv1.weight": torch.zeros(3)})
    with pytest.raises(
        ModelError, match=r"another architecture.*layer1.0.conv1.weight"
    ):
        load_model(folder)


def test_too_few_tensors_load_nothing(folder):
    tensors = load((folder / WEIGHTS).read_bytes())
    del tensors["up_conv2.up_sample.bias"]
    put_weights(folder, tensors)
    with pytest.raises(ModelError, match=r"Only 133 of 134 .*'a-model'. Nothing was"):
        load_model(folder)


def test_the_wrong_width(folder):
    edit_card(folder, width=3)
    with pytest.raises(ModelError, match=r"'a-model' does not fit: .*needs"):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("down_conv1.double_conv.double_conv.0.weight", float("nan"), "not finite"),
        ("conv_last.bias", float("inf"), "not finite"),
        ("double_conv.double_conv.1.running_var", -1e-3, "negative"),
    ],
)
def test_impossible_values_are_damage(folder, name, value, told):
    tensors = load((folder / WEIGHTS).read_bytes())
    tensors[name].view(-1)[0] = value
    put_weights(folder, tensors)
    with pytest.raises(ModelError, match=f"'a-model' is damaged: {name} is {told}"):
        load_model(folder)


def test_an_artery_model_without_its_last_convolution_is_never_made_up(folder):
    tensors = load((folder / WEIGHTS).read_bytes())
    without = {k: v for k, v in tensors.items() if not k.startswith("conv_last")}
    put_weights(folder, without)
    with pytest.raises(ModelError, match=r"'a-model' is incomplete.*conv_last"):
        load_model(folder)
    edit_card(folder, kind="ssl")
    report = load_model(folder).report
    assert str(report).endswith(
        "134 of 134 encoder and decoder tensors from a-model, conv_last new"
    )
    put_weights(folder, without | {"conv_last.bias": tensors["conv_last.bias"]})
    with pytest.raises(ModelError, match="half of conv_last"):
        load_model(folder)


def test_loading_draws_no_weights_but_those_that_are_missing(tmp_path):
    save_model(tmp_path / "whole", weights_of(), card_of())
    torch.manual_seed(5)
    before = torch.get_rng_state()
    load_model(tmp_path / "whole")
    assert torch.equal(torch.get_rng_state(), before)
    body = {k: v for k, v in weights_of().items() if not k.startswith("conv_last")}
    save_model(tmp_path / "body", body, card_of(kind="ssl"))
    network = load_model(tmp_path / "body").network
    assert not torch.equal(torch.get_rng_state(), before)
    assert network.conv_last.weight.std() > 0
    assert all(p.requires_grad and p.device.type == "cpu" for p in network.parameters())


def test_load_weights_leaves_the_network_alone_when_it_refuses():
    network = CMUNet(2)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    few = dict(list(weights_of(seed=9).items())[:20])
    with pytest.raises(ModelError, match="Nothing was loaded"):
        load_weights(network, few, "few")
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])
    report = load_weights(network, few, "few", allow_missing=114)
    assert (report.loaded, report.total, report.head_loaded) == (20, 134, False)
    assert torch.equal(
        network.state_dict()["down_conv1.double_conv.double_conv.0.weight"],
        few["down_conv1.double_conv.double_conv.0.weight"],
    )
    assert torch.equal(network.conv_last.weight, before["conv_last.weight"])


# The card


def test_a_card_from_a_newer_version_says_to_update(folder):
    edit_card(folder, card_version=2, something_new={"a": 1})
    with pytest.raises(ModelError, match=r"'a-model' was written by a newer.*Update"):
        load_model(folder)


def test_unknown_fields_of_this_version_are_passed_over(folder):
    edit_card(folder, remark="hello")
    assert load_model(folder).card.name == "a-model"


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "3", "null", '"card"', "{}", "\x00", "[" * 100_000, "\xff" * 10],
)
def test_a_damaged_card(folder, text):
    (folder / CARD).write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelError, match=r"'a-model'.*damaged"):
        read_card(folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "vein"},
        {"kind": None},
        {"kind": ["artery"]},
        {"width": 0},
        {"width": 10_000},
        {"width": "2"},
        {"width": 2.0},
        {"width": True},
        {"threshold": 0},
        {"threshold": 1.5},
        {"threshold": "0.5"},
        {"threshold": None},
        {"preprocessing": None},
        {"preprocessing": {"grid": 5}},
        {"preprocessing": {"grid": "48"}},
        {"preprocessing": {"grid": 1e400}},
        {"preprocessing": {"sharpen": 1}},
        {"name": "../evil"},
        {"name": "a/b"},
        {"name": "a\\b"},
        {"name": "..."},
        {"name": ""},
        {"name": "x" * 65},
        {"name": 7},
        {"name": "nul.txt"},
        {"card_version": "2"},
        {"card_version": None},
        {"description": ["a"]},
        {"sha256": None},
        {"metrics": "good"},
        {"labels": "18"},
        {"parent": 1},
    ],
)
def test_a_card_with_impossible_values(folder, changes):
    edit_card(folder, **changes)
    with pytest.raises(ModelError, match=r"'a-model': card.json is damaged"):
        load_model(folder)


def test_a_card_with_an_earlier_measure_of_contrast_is_read(folder):
    edit_card(folder, postprocessing={"twig_margin": 2.0, "contrast_length": 0.52})
    assert load_model(folder).card.postprocessing == Postprocessing(twig_margin=2.0)


def test_an_enormous_card_is_not_read(folder):
    with (folder / CARD).open("ab") as file:
        file.truncate(3 * 2**20)
    with pytest.raises(ModelError, match=r"'a-model'.*too large"):
        read_card(folder)


# Nothing foreign runs


class Bomb:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


def test_pickles_in_the_folder_are_never_touched(folder, tmp_path):
    crater = tmp_path / "crater"
    for name in ("weights.pt", "card.pkl", "weights.pth", "model.ckpt"):
        (folder / name).write_bytes(pickle.dumps(Bomb(crater)))
    load_model(folder)
    load_model(folder)
    assert not crater.exists()
    # The trap itself works.
    pickle.loads((folder / "card.pkl").read_bytes())
    assert crater.exists()


@pytest.mark.parametrize("legacy", [True, False])
def test_a_pickle_in_place_of_the_weights_is_damage(folder, tmp_path, legacy):
    crater = tmp_path / "crater"
    file = tmp_path / "weights.pt"
    torch.save(Bomb(crater), file, _use_new_zipfile_serialization=not legacy)
    put_weights(folder, file.read_bytes())
    with pytest.raises(ModelError, match=r"'a-model'.*damaged"):
        load_model(folder)
    assert not crater.exists()


def test_a_pickle_in_place_of_the_card_is_damage(folder, tmp_path):
    crater = tmp_path / "crater"
    (folder / CARD).write_bytes(pickle.dumps(Bomb(crater)))
    with pytest.raises(ModelError, match="damaged"):
        load_model(folder)
    assert not crater.exists()


# Names


def test_models_are_found_by_name_bundled_ones_first(homes, folder):
    bundled, own = homes
    shutil.copytree(folder, own / "mine")
    shutil.copytree(folder, own / "both")
    shutil.copytree(folder, bundled / "both")
    assert find_model("mine") == own / "mine"
    assert find_model("both") == bundled / "both"
    assert [path.parent.name for _, path in list_models()] == ["bundled", "models"]
    assert find_model(folder) == folder
    assert find_model(str(folder)) == folder


def test_an_unknown_name_is_told_the_known_ones(homes, folder):
    _, own = homes
    shutil.copytree(folder, own / "renamed")
    with pytest.raises(UnknownModelError, match=r"'nope'. Known models: renamed"):
        load_model("nope")
    # Which is a name that works, whatever the card calls it.
    assert load_model("renamed").card.name == "a-model"


@pytest.mark.parametrize(
    "name", ["", "../a-model/x", "..", "a" * 5000, "a\0b", "~nobody/x", "a\nb", "-"]
)
def test_names_that_name_nothing(homes, tmp_path, monkeypatch, name):
    empty = tmp_path / "empty"
    empty.mkdir()
    monkeypatch.chdir(empty)
    with pytest.raises(UnknownModelError) as caught:
        find_model(name)
    assert len(str(caught.value).splitlines()) == 1


def test_a_name_never_climbs_out_of_the_models_folder(homes, folder):
    _, own = homes
    shutil.copytree(folder, own.parent / "secret")
    with pytest.raises(UnknownModelError):
        find_model("../secret")


def test_the_current_folder_is_named_in_messages(folder, monkeypatch):
    monkeypatch.chdir(folder)
    assert load_model(".").report.source == "a-model"
    (folder / WEIGHTS).unlink()
    with pytest.raises(ModelError, match="'a-model' is incomplete"):
        load_model(".")


def test_damaged_models_are_left_out_of_the_list(homes, folder):
    _, own = homes
    for name in ("good", "bad", "no name"):
        shutil.copytree(folder, own / name)
    (own / "bad" / CARD).write_text("{")
    (own / "not-a-model").mkdir()
    (own / "file").write_text("")
    assert [path.name for _, path in list_models()] == ["good"]
    assert [p.name for p in models.model_folders()] == ["bad", "good", "no name"]


def test_no_model_at_all(homes):
    assert list_models() == []
    with pytest.raises(UnknownModelError, match="Known models: none"):
        find_model("cmunet-artery")


@pytest.mark.parametrize(
    ("name", "good"),
    [
        ("cmunet-artery", True),
        ("My.Model_2", True),
        ("7", True),
        (".hidden", False),
        ("a b", False),
        ("a.", False),
        ("com1", False),
        ("é", False),
        ("a/b", False),
        ("a\n", False),
    ],
)
def test_model_names(name, good):
    assert is_model_name(name) == good


@pytest.mark.parametrize("called", ["my model", "Modèle", "com1", "a" * 100])
def test_a_folder_of_any_name_gets_a_model_that_loads(tmp_path, called):
    folder = tmp_path / called
    save_model(folder, weights_of(), card_of(name=name_for(folder, "finetuned")))
    assert load_model(folder).card.name == "finetuned"
    assert name_for(tmp_path / "my-model", "finetuned") == "my-model"


# Saving


def test_a_crash_between_weights_and_card_is_noticed(folder, monkeypatch):
    real = models.atomic_write

    def crash(path, *args, **kwargs):
        if path.name == CARD:
            raise KeyboardInterrupt
        return real(path, *args, **kwargs)

    monkeypatch.setattr(models, "atomic_write", crash)
    with pytest.raises(KeyboardInterrupt):
        save_model(folder, weights_of(seed=1), card_of())
    with pytest.raises(ModelError, match="not what its card says"):
        load_model(folder)


def before_and_after(folder, save) -> bool:
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    save()
    return before == {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(
    "card", [{"name": "a/b"}, {"kind": "vein"}, {"threshold": 7.0}, {"width": 0}]
)
def test_a_card_that_could_not_be_read_is_not_written(folder, card):
    def attempt():
        with pytest.raises(ModelError, match="cannot be saved"):
            save_model(folder, weights_of(seed=1), card_of(**card))

    assert before_and_after(folder, attempt)


def test_figures_that_json_cannot_hold_spoil_no_older_model(folder):
    def attempt():
        with pytest.raises(TypeError):
            save_model(folder, weights_of(seed=1), card_of(metrics={"a": object()}))

    assert before_and_after(folder, attempt)


@pytest.mark.parametrize("value", [float("nan"), 1e6])
def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path, value):
    weights = weights_of()
    weights["conv_last.bias"][0] = value
    with pytest.raises(ModelError, match=r"conv_last.bias"):
        save_model(tmp_path / "m", weights, card_of())
    assert not (tmp_path / "m").exists()


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "m").write_text("mine")
    with pytest.raises(WriteError):
        save_model(tmp_path / "m", weights_of(), card_of())
    assert (tmp_path / "m").read_text() == "mine"


def test_saving_does_not_change_what_it_is_given(tmp_path):
    weights = weights_of()
    copy = {k: v.clone() for k, v in weights.items()}
    card = card_of()
    save_model(tmp_path / "m", weights, card)
    assert card == replace(card_of())
    for name, value in weights.items():
        assert value.dtype == copy[name].dtype
        assert torch.equal(value, copy[name])


# No torch


@pytest.mark.slow
def test_torch_is_not_imported_before_it_is_needed(folder):
    home = folder.parent / "home"
    shutil.copytree(folder, home / "models" / "mine")
    # Loads the package, the registry and all modules that declare options.
    code = "from napari_cmunet.cli.main import main; main(['models'])"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; sys.exit('torch' in sys.modules)"],
        env=os.environ | {"NAPARI_CMUNET_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_bundled_models_lie_in_the_wheel_or_in_the_repository():
    place = models.bundled_models_folder()
    assert place.name == "models"
    assert place.is_dir()


def test_every_bundled_model_is_sound():
    for path in models.bundled_models_folder().glob(f"*/{CARD}"):
        assert load_model(path.parent).report.total == 134
        assert read_card(path.parent).name == path.parent.name


@pytest.mark.parametrize("width", [3, 64, 128])
def test_no_network_is_made_for_weights_that_do_not_fit(folder, monkeypatch, width):
    # A card of some bytes must not make the memory of a network of 500 MB be taken.
    made = []
    whole = CMUNet.__init__

    def counted(self, *args, **options):
        made.append(torch.empty(0).device.type)
        whole(self, *args, **options)

    monkeypatch.setattr(CMUNet, "__init__", counted)
    rewrite(folder, width=width)
    with pytest.raises(ModelError, match="does not fit"):
        load_model(folder)
    assert set(made) == {"meta"}
    data = save({"conv_last.bias": torch.zeros(2)})
    (folder / WEIGHTS).write_bytes(data)
    rewrite(folder, width=width, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelError, match="half of conv_last is missing"):
        load_model(folder)
    assert set(made) == {"meta"}


def test_what_a_damaged_header_says_is_told_on_one_line(folder):
    header = json.dumps({"a": {"dtype": "a\nb", "shape": [1], "data_offsets": [0, 1]}})
    data = len(header).to_bytes(8, "little") + header.encode() + b"0"
    (folder / WEIGHTS).write_bytes(data)
    rewrite(folder, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelError, match="is damaged") as caught:
        load_model(folder)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.bool, torch.uint8])
def test_counters_of_a_kind_that_torch_knows_little_of(folder, kind):
    weights = load((folder / WEIGHTS).read_bytes())
    name = next(n for n in weights if n.endswith("num_batches_tracked"))
    data = save(weights | {name: torch.zeros((), dtype=kind)})
    (folder / WEIGHTS).write_bytes(data)
    rewrite(folder, sha256=hashlib.sha256(data).hexdigest())
    with pytest.raises(ModelError, match="is damaged"):
        load_model(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"preprocessing": {"grid": "a" * 5000}},
        {"preprocessing": {"b" * 5000: 1}},
        {"preprocessing": {"radius": int("9" * 4000)}},
        {"width": int("9" * 4000)},
        {"card_version": int("9" * 4000)},
        {"name": "c" * 5000},
        {"kind": "d" * 5000},
    ],
)
def test_a_message_does_not_quote_at_length(folder, values):
    rewrite(folder, **values)
    with pytest.raises(ModelError) as error:
        read_card(folder)
    assert len(str(error.value)) < 500


def rewrite(folder: Path, **values: object) -> None:
    """Change values of a card."""
    card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    (folder / CARD).write_text(json.dumps(card | values), encoding="utf-8")
