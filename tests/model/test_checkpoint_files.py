"""Files that are no checkpoint, are damaged, or are made to do harm."""

from __future__ import annotations

import io
import random
import struct
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.model import checkpoint as checkpoint_files
from napari_cmunet.model.importer import read_checkpoint
from tests.model import checkpoint_makers as make
from tests.model.checkpoint_makers import refusal

if TYPE_CHECKING:
    from pathlib import Path

FIRST = "down_conv1.double_conv.double_conv.0.weight"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


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
        ({"shape": (2, 10)}, "damaged"),
        ({"stride": (10, 1)}, "damaged"),
        ({"offset": 1}, "damaged"),
        ({"offset": -1}, "impossible size"),
        ({"stride": (-9, 1)}, "impossible size"),
        ({"shape": (2, -9)}, "impossible size"),
        ({"shape": (True, 9)}, "impossible size"),
        ({"shape": (2.0, 9)}, "impossible size"),
        ({"offset": 2**200}, "damaged"),
        ({"length": 2**62}, "impossible size"),
        ({"shape": [2, 9]}, "impossible size"),
        ({"shape": (2,)}, "damaged"),
        ({"shape": (1,) * 9, "stride": (1,) * 9}, "impossible size"),
        ({"shape": (2**40, 2**40), "stride": (0, 0)}, "is refused: it "),
        ({"shape": (2**15, 2**15, 2), "stride": (0, 0, 0)}, "another architecture"),
        ({"length": 10**6}, "numbers are missing"),
        ({"length": 19}, "numbers are missing"),
        ({"length": 17}, "numbers are missing"),
    ],
)
def test_views_outside_their_storage(
    tmp_path: Path, arguments: dict, reason: str
) -> None:
    path = make.archive(tmp_path / "x.pth", rebuilt(**arguments), {"0": bytes(72)})
    assert reason in refusal(path)


def test_storages_that_are_not_there(tmp_path: Path) -> None:
    path = make.archive(tmp_path / "x.pth", rebuilt())
    assert "numbers are missing" in refusal(path)


@pytest.mark.slow
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
