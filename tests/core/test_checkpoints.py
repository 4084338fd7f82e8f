"""Published checkpoints become models: the layouts, and what is refused."""

from __future__ import annotations

import io
import json
import random
import re
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from napari_cmunet.core import checkpoint_files, published
from napari_cmunet.core.checkpoints import (
    ImportReceipt,
    import_checkpoint,
    read_checkpoint,
)
from napari_cmunet.core.models import load_model, read_card, user_models_folder
from napari_cmunet.errors import CMUNetError, ModelError, ReadError
from tests.core import checkpoint_makers as make

if TYPE_CHECKING:
    from pathlib import Path

HALF = {"rtol": 1e-3, "atol": 1e-6}  # model folders hold half precision
FIRST = "down_conv1.double_conv.double_conv.0.weight"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def assert_loaded(path: Path, source: nn.Module, parts: str) -> ImportReceipt:
    """The model made of a file computes with the very weights that were saved."""
    folder, receipt = import_checkpoint(path, "made")
    made = load_model(folder)
    wanted = source.state_dict()
    for name, value in made.network.state_dict().items():
        if name.startswith("conv_last"):
            part = "head"
        else:
            part = "decoder" if make.is_decoder(name) else "encoder"
        if part in parts:
            torch.testing.assert_close(value, wanted[name].to(value.dtype), **HALF)
    assert made.card.kind == receipt.kind == ("artery" if "head" in parts else "ssl")
    assert made.receipt.head_loaded == ("head" in parts)
    assert made.card.width == receipt.width == make.WIDTH
    assert made.preprocessing.grid == 256
    assert str(receipt) in (folder / "README.md").read_text(encoding="utf-8")
    return receipt


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_plain_state_dict(tmp_path: Path, protocol: int, archive: bool) -> None:
    source, path = make.network(), tmp_path / "plain.pth"
    torch.save(
        source.state_dict(),
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=archive,
    )
    receipt = assert_loaded(path, source, "encoder decoder head")
    assert receipt.layout == "a plain state dict"
    assert str(receipt).startswith(
        "134 of 134 encoder and decoder tensors from plain.pth, conv_last too.\n"
    )
    assert receipt.new == receipt.left_out == receipt.notes == ()


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_whole_pickled_module(tmp_path: Path, protocol: int, archive: bool) -> None:
    source, path = make.network(), tmp_path / "whole.pth"
    make.save_whole(
        path,
        source,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=archive,
    )
    receipt = assert_loaded(path, source, "encoder decoder head")
    assert receipt.layout == "a whole pickled module"


def test_whole_pickled_module_in_data_parallel(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "whole.pth"
    make.save_whole(path, source, wrap=True)
    assert_loaded(path, source, "encoder decoder head")


def test_data_parallel(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "parallel.pth"
    torch.save(nn.DataParallel(source).state_dict(), path)
    receipt = assert_loaded(path, source, "encoder decoder head")
    assert receipt.layout == "a state dict with 'module.' (DataParallel)"


def test_state_dict_in_a_dict(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "training.pth"
    torch.save({"epoch": 4, "state_dict": source.state_dict()}, path)
    assert_loaded(path, source, "encoder decoder head")


def test_mmengine(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "epoch_300.pth"
    make.save_mmengine(path, source)
    receipt = assert_loaded(path, source, "encoder decoder")
    assert receipt.layout == "a CM-UNet pre-training (mmengine)"
    assert receipt.new == ()
    assert receipt.notes == ("Its conv_last is a pre-training's and was left out.",)
    # 70 of the target's encoder, 66 of the feature decoder, a projector, conv_last.
    assert len(receipt.left_out) == 70 + 66 + 1 + 2


def test_spark(tmp_path: Path) -> None:
    source, path = make.network(out_classes=1), tmp_path / "spark.pth"
    make.save_spark(path, source)
    receipt = assert_loaded(path, source, "encoder decoder")
    assert receipt.layout == "a SparK pre-training"
    assert receipt.new == ()
    assert "norm_black" in receipt.left_out


def test_moco(tmp_path: Path) -> None:
    source, path = make.network(), tmp_path / "moco.ckpt"
    make.save_moco(path, source)
    receipt = assert_loaded(path, source, "encoder")
    assert receipt.layout == "a MoCo pre-training (Lightning)"
    assert receipt.new == ("decoder",)
    assert "fc.weight" in receipt.left_out
    assert "queue" in receipt.left_out
    assert "70 of 134 encoder and decoder tensors" in str(receipt)
    assert "conv_last new" in str(receipt)
    assert "New, with random values (seed 0): decoder." in str(receipt)


@pytest.mark.parametrize("name", ["genesis.pt", "mae.pt"])
def test_models_genesis_and_mae(tmp_path: Path, name: str) -> None:
    source, path = make.network(out_classes=1), tmp_path / name
    make.save_genesis(path, source)
    receipt = assert_loaded(path, source, "encoder decoder")
    assert receipt.layout == "a Models Genesis or MAE pre-training"
    assert receipt.new == ()


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
    receipt = read_checkpoint(path).receipt
    assert receipt.kind == "artery"
    assert receipt.new == ()


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


def refusal(path: Path) -> str:
    with pytest.raises(ModelError) as error:
        import_checkpoint(path, "made")
    assert not (user_models_folder() / "made").exists()
    assert path.name in str(error.value)
    assert str(path.parent) not in str(error.value)
    return str(error.value)


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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a PyTorch checkpoint"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "not a PyTorch checkpoint"),
        (b"<!DOCTYPE html><html>not found</html>", "not a PyTorch checkpoint"),
        (b"import os\nos.system('x')\n", "not a PyTorch checkpoint"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "LFS pointer"),
        (b"PK\x03\x04" + bytes(200), "zip archive"),
        (b"PK", "zip archive"),
        (b"\x80\x02K\x01.", "not a PyTorch checkpoint"),
    ],
)
def test_other_files(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    assert reason in refusal(tmp_path / "x.pth")


def test_files_that_cannot_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in (tmp_path / "missing.pth", tmp_path):
        with pytest.raises(ReadError, match="cannot be read"):
            read_checkpoint(path)
    torch.save(make.network().state_dict(), tmp_path / "large.pth")
    monkeypatch.setattr(checkpoint_files, "MAX_FILE_BYTES", 1000)
    with pytest.raises(ReadError, match=r"large\.pth: larger than"):
        read_checkpoint(tmp_path / "large.pth")


@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_truncated_files(tmp_path: Path, archive: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save(
        make.network().state_dict(), path, _use_new_zipfile_serialization=archive
    )
    data = path.read_bytes()
    for size in [*range(1, len(data), len(data) // 15), len(data) - 1]:
        path.write_bytes(data[:size])
        assert "is refused: it " in refusal(path)


def test_one_altered_byte_of_a_tensor(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(make.network().state_dict(), path)
    with zipfile.ZipFile(path) as made:
        info = next(i for i in made.infolist() if i.filename.endswith("data/0"))
    data = bytearray(path.read_bytes())
    name_length, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
    data[info.header_offset + 30 + name_length + extra + 3] ^= 1
    path.write_bytes(data)
    assert "truncated or altered" in refusal(path)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_altered_files_end_in_a_sentence(
    tmp_path: Path, seed: int, archive: bool
) -> None:
    chance, path = random.Random(seed), tmp_path / "x.pth"
    saved = io.BytesIO()
    torch.save(
        make.network(width=1).state_dict(),
        saved,
        _use_new_zipfile_serialization=archive,
    )
    for _ in range(20):
        data = bytearray(saved.getvalue())
        for _ in range(chance.randint(1, 30)):
            if chance.random() < 0.5:
                data[chance.randrange(len(data))] = chance.randrange(256)
            else:  # where the archive's directory or the list of objects is
                data[-chance.randrange(1, 2000)] = chance.randrange(256)
        path.write_bytes(data)
        try:
            read_checkpoint(path)
        except CMUNetError as exc:
            assert "\n" not in str(exc)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.pth"]


def rebuilt(
    *, length: int = 18, offset: int = 0, shape: Any = (2, 9), stride: Any = (9, 1)
) -> bytes:
    """A pickle of one float32 tensor of the storage '0'."""
    two = 2
    storage = make.program("storage", two) + make.named("torch", "FloatStorage", two)
    storage += b"".join(make.program(v, two) for v in ("0", "cpu", length))
    plain = [make.program(v, two) for v in (offset, shape, stride, False, {})]
    function = make.named("torch._utils", "_rebuild_tensor_v2", two)
    tensor = make.calling(function, b"(" + storage + b"tQ", *plain)
    return make.whole(b"}" + make.program(FIRST, two) + tensor + b"s", two)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"shape": (2, 10)}, "reaches beyond"),
        ({"stride": (10, 1)}, "reaches beyond"),
        ({"offset": 1}, "reaches beyond"),
        ({"offset": -1}, "impossible size"),
        ({"stride": (-9, 1)}, "impossible size"),
        ({"shape": (2, -9)}, "impossible size"),
        ({"shape": (True, 9)}, "impossible size"),
        ({"shape": (2.0, 9)}, "impossible size"),
        ({"offset": 2**200}, "impossible size"),
        ({"length": 2**62}, "impossible size"),
        ({"shape": [2, 9]}, "without a shape"),
        ({"shape": (2,)}, "impossible shape"),
        ({"shape": (1,) * 9, "stride": (1,) * 9}, "impossible shape"),
        ({"shape": (2**40, 2**40), "stride": (0, 0)}, "another architecture"),
        ({"length": 10**6}, "another architecture"),
    ],
)
def test_views_outside_their_storage(
    tmp_path: Path, arguments: dict, reason: str
) -> None:
    path = make.archive(tmp_path / "x.pth", rebuilt(**arguments), {"0": bytes(72)})
    assert reason in refusal(path)


def test_storages_that_are_not_there(tmp_path: Path) -> None:
    record = {"shape": (2, 1, 3, 3), "stride": (9, 9, 3, 1)}
    for length, parts in ((18, {}), (18, {"0": bytes(71)}), (19, {"0": bytes(72)})):
        data = rebuilt(length=length, **record)
        path = make.archive(tmp_path / "x.pth", data, parts)
        with (
            checkpoint_files.open_checkpoint(path) as opened,
            pytest.raises(Exception, match="numbers are missing"),
        ):
            opened.load(opened.content[FIRST])


def test_a_small_storage_is_not_blown_up(tmp_path: Path) -> None:
    data = rebuilt(shape=(2**15, 2**15, 2), stride=(0, 0, 0))
    path = make.archive(tmp_path / "x.pth", data, {"0": bytes(72)})
    with (
        checkpoint_files.open_checkpoint(path) as opened,
        pytest.raises(Exception, match="impossible size"),
    ):
        opened.load(opened.content[FIRST])


def test_archives_of_other_kinds(tmp_path: Path) -> None:
    path, empty = tmp_path / "x.pth", b"\x80\x02}."

    def archive(parts: list[tuple[str, bytes]], **options: Any) -> str:
        with zipfile.ZipFile(path, "w", **options) as made:
            for name, data in parts:
                made.writestr(name, data)
        return refusal(path)

    good = ("a/data.pkl", empty)
    deflated = zipfile.ZIP_DEFLATED
    assert "compressed" in archive(
        [good, ("a/data/0", bytes(10**7))], compression=deflated
    )
    assert "not a PyTorch checkpoint" in archive([("data.npy", b"x")])
    assert "not a PyTorch checkpoint" in archive([good, ("b/data.pkl", empty)])
    assert "not a PyTorch checkpoint" in archive([("../../data.pkl", empty)])
    assert "TorchScript" in archive([good, ("a/constants.pkl", empty)])
    assert "big-endian" in archive([good, ("a/byteorder", b"big")])
    assert "tail" in archive([("a/data.pkl", empty + b"x")])
    with pytest.warns(UserWarning, match="Duplicate"):
        assert "two parts of one name" in archive([good, good])
    assert "too many parts" in archive([(f"a/{i:050}", b"") for i in range(45_000)])


def test_parts_that_share_bytes(tmp_path: Path) -> None:
    path = make.archive(tmp_path / "x.pth", b"\x80\x02}.", {"0": bytes(5000)})
    data = path.read_bytes()
    end = data.rindex(b"PK\x05\x06")
    (start,) = struct.unpack_from("<I", data, end + 16)
    entries = data[start:end]
    last = entries[entries.rindex(b"PK\x01\x02") :]
    for i in range(1, 10):
        entries += last.replace(b"data/0", b"data/%d" % i)
    count = 11
    tail = struct.pack(
        "<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, len(entries), start, 0
    )
    path.write_bytes(data[:start] + entries + tail)
    assert "overlap" in refusal(path)


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
    assert "none of the known" in str(read_checkpoint(path).receipt)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known = published.PublishedFile("ratio_79-1", "model_genesis_lr0.001.pth", digest)
    monkeypatch.setattr(published, "PUBLISHED", (known,))
    folder, receipt = import_checkpoint(path)
    assert folder.name == "published-model-genesis-79-1"
    assert "Known file: model_genesis_lr0.001.pth, ratio_79-1." in str(receipt)
    card = read_card(folder)
    assert card.licence == "none stated by the authors"
    assert card.labels == 18
    assert digest in card.data
    assert str(tmp_path) not in json.dumps(card.__dict__)


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
