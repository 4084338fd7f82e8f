from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.masks.files import read_mask, read_provenance
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.reader import get_reader
from napari_cmunet.writer import write_mask_tiff


def save(path: Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


@pytest.fixture
def notices(monkeypatch):
    shown: list[str] = []
    monkeypatch.setattr("napari.utils.notifications.show_info", shown.append)
    return shown


def frame(value: int = 5) -> np.ndarray:
    array = np.full((40, 48), value, np.uint16)
    array[3] = 7
    return array


@pytest.mark.parametrize(
    "path", ["a.tif", "a", [], ["a.npy", "b.tif"], "a.npz", "folder.npy/a.txt"]
)
def test_only_npy_files_are_claimed(path):
    assert get_reader(path) is None


def test_a_frame_and_a_cine(tmp_path, notices):
    for array in (frame(), np.stack([frame(1), frame(2)])):
        path = save(tmp_path / "heart.NPY.npy", array)
        ((data, options, kind),) = get_reader(path)(path)
        assert kind == "image"
        assert (data == array).all()
        assert data.shape == array.shape
        assert options["name"] == "heart.NPY"
        assert len(options["metadata"]["napari_cmunet"]["source_sha256"]) == 64
        assert str(tmp_path) not in json.dumps(options)
    assert notices == []


def test_several_frames_become_a_stack(tmp_path, notices):
    paths = [save(tmp_path / f"{i}.npy", frame(i)) for i in range(3)]
    ((data, _, _),) = get_reader(paths)(paths)
    assert data.shape == (3, 40, 48)
    assert data[2, 0, 0] == 2


def test_frames_that_do_not_fit_stay_apart(tmp_path, notices):
    paths = [save(tmp_path / "a.npy", frame()), save(tmp_path / "b.npy", frame().T)]
    layers = get_reader(paths)(paths)
    assert [data.shape for data, _, _ in layers] == [(40, 48), (48, 40)]
    assert [options["name"] for _, options, _ in layers] == ["a", "b"]


def test_a_bad_file_is_claimed_and_named(tmp_path):
    path = tmp_path / "bad.npy"
    path.write_text("not an array")
    read = get_reader(str(path))
    with pytest.raises(ReadError, match=r"^bad\.npy: not an NPY file: it starts with"):
        read(str(path))


def test_notes_are_shown(tmp_path, notices):
    array = frame().astype(np.float32)
    array[0, 0] = np.nan
    path = save(tmp_path / "a.npy", array)
    get_reader(path)(path)
    assert len(notices) == 1
    assert notices[0].startswith("a.npy: 1 value (NaN or infinite)")


LABELS = np.zeros((40, 48), np.int32)
LABELS[4:9, 5:9] = 3
LABELS[20:22] = 1


def test_any_label_is_artery(tmp_path):
    path = str(tmp_path / "a.tif")
    assert write_mask_tiff(path, LABELS, {"metadata": {}}) == [path]
    assert (read_mask(path) == (LABELS > 0)).all()
    assert tifffile.imread(path).max() == 255
    assert read_provenance(path).corrected


def test_without_a_suffix_one_is_added(tmp_path):
    (written,) = write_mask_tiff(str(tmp_path / "a.b"), LABELS, {})
    assert written == str(tmp_path / "a.b.tif")
    assert Path(written).exists()


def test_provenance_of_the_layer_is_kept(tmp_path):
    path = str(tmp_path / "a.tif")
    origin = Provenance(model="cmunet-artery", threshold=0.4, source_sha256="ab" * 32)
    metadata = {"napari_cmunet": origin.to_dict() | {"pixel_size_mm": [0.3, 0.2]}}
    write_mask_tiff(path, LABELS, {"metadata": metadata, "scale": (1.0, 1.0)})
    assert read_provenance(path) == origin
    with tifffile.TiffFile(path) as tif:
        assert json.loads(tif.pages[0].description)["pixel_size_mm"] == [0.3, 0.2]


def pixel_size(tmp_path, attributes, labels=LABELS):
    path = str(tmp_path / "a.tif")
    write_mask_tiff(path, labels, attributes)
    with tifffile.TiffFile(path) as tif:
        return json.loads(tif.pages[0].description)["pixel_size_mm"]


def test_of_a_prediction_the_arteries_alone_are_written(tmp_path):
    """2 is what was there before the contrast; in a mask, any label is artery."""
    labels = np.array([[0, 1], [2, 1]], np.uint8)
    path = str(tmp_path / "m.tif")
    for role, wanted in (("prediction", [[0, 1], [0, 1]]), ("mask", [[0, 1], [1, 1]])):
        attributes = {"metadata": {"napari_cmunet": {"role": role}}}
        write_mask_tiff(path, labels, attributes)
        assert (read_mask(path) > 0).astype(int).tolist() == wanted


def test_scale_is_a_size_only_where_it_says_so(tmp_path):
    scale = (0.31, 0.25)
    assert pixel_size(tmp_path, {"scale": scale}) is None
    assert pixel_size(tmp_path, {"scale": scale, "units": ("pixel", "pixel")}) is None
    assert pixel_size(tmp_path, {"scale": scale, "units": ("mm", "mm")}) == [0.31, 0.25]
    metadata = {"napari_cmunet": {"scale_unit": "mm"}}
    cine = np.stack([LABELS] * 2)
    found = pixel_size(
        tmp_path, {"scale": (1, 0.31, 0.25), "metadata": metadata}, labels=cine
    )
    assert found == [0.31, 0.25]


@pytest.mark.parametrize("metadata", [None, {}, {"napari_cmunet": 3}])
def test_odd_metadata_do_no_harm(tmp_path, metadata):
    assert pixel_size(tmp_path, {"metadata": metadata, "scale": None}) is None


def test_other_shapes_are_refused(tmp_path):
    with pytest.raises(WriteError, match=r"^a\.tif: this layer has 4 axes"):
        write_mask_tiff(str(tmp_path / "a.tif"), np.zeros((2, 2, 9, 9), int), {})
    assert not list(tmp_path.iterdir())


def test_a_real_labels_layer(tmp_path):
    from napari.layers import Labels

    layer = Labels(LABELS, scale=(0.3, 0.2), units=("mm", "mm"))
    data, attributes, kind = layer.as_layer_data_tuple()
    assert kind == "labels"
    path = str(tmp_path / "a.tif")
    write_mask_tiff(path, data, attributes)
    assert (read_mask(path) == (LABELS > 0)).all()
    assert pixel_size(tmp_path, attributes) == [0.3, 0.2]
