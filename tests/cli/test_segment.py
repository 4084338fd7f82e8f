"""``segment``: a mask for each image that can be read, whatever the others are."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from napari_cmunet.cli.main import main
from napari_cmunet.cli.segment import one as segment_module
from napari_cmunet.io.masks.files import read_mask, read_provenance
from napari_cmunet.model.card import read_card
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model, save_model
from napari_cmunet.synthetic import PhantomConfig, make_cine, make_frame
from napari_cmunet.util import safe_files

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A phantom frame (128, 128), uint8."""
    return make_frame(PhantomConfig(size=128, seed=1))[0]


@pytest.fixture
def images(tmp_path, frame) -> Path:
    """A folder with three images: one TIFF, one PNG, one NPY below."""
    folder = tmp_path / "images"
    (folder / "below").mkdir(parents=True)
    tifffile.imwrite(folder / "a.tif", frame)
    Image.fromarray(frame[:100, :80]).save(folder / "b.png")
    np.save(folder / "below" / "c.npy", frame.astype(np.float32))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def run(tiny_model, capsys):
    """Run ``segment`` with the tiny model; returns exit code, stdout, stderr lines."""

    def segment(*args, model=tiny_model):
        code = main(["segment", *map(str, args), "--model", str(model)])
        out, err = capsys.readouterr()
        return code, out.splitlines(), err.splitlines()

    return segment


# What is written


def test_one_mask_for_each_image_of_a_folder(run, images, tmp_path):
    out = tmp_path / "out"
    code, printed, complaints = run(images, "-o", out)
    assert (code, complaints) == (0, [])
    expected = [out / "a.tif", out / "b.tif", out / "below" / "c.tif"]
    assert [Path(line) for line in printed] == expected
    found = sorted(p for p in out.rglob("*") if p.is_file())
    assert found == [*expected, out / "summary.csv"]


def test_masks_any_program_reads_rightly(run, images, frame, tmp_path):
    run(images, "-o", tmp_path / "out")
    mask = tifffile.imread(tmp_path / "out" / "a.tif")
    assert mask.dtype == np.uint8
    assert mask.shape == (128, 128)
    assert set(np.unique(mask)) == {0, 255}
    assert np.array_equal(np.asarray(Image.open(tmp_path / "out" / "a.tif")), mask)
    assert tifffile.imread(tmp_path / "out" / "b.tif").shape == (100, 80)
    # The same picture in another format: the same mask.
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "below" / "c.tif"), mask)


def test_the_mask_is_that_of_the_model(run, images, frame, tiny_model, tmp_path):
    import torch

    run(images / "a.tif", "-o", tmp_path)
    predictor = Predictor(load_model(tiny_model), torch.device("cpu"))
    assert np.array_equal(
        read_mask(tmp_path / "a.tif"), predictor.predict(frame) >= 128
    )


def test_provenance_lies_inside(run, images, tiny_model, tmp_path):
    run(images / "a.tif", "-o", tmp_path / "out", "--threshold", "0.3")
    found = read_provenance(tmp_path / "out" / "a.tif")
    assert found.model == "tiny"
    assert found.model_sha256 == read_card(tiny_model).sha256
    assert found.threshold == 0.3
    assert found.device == "cpu"
    assert found.frames == (0,)
    assert len(found.source_sha256) == 64
    with tifffile.TiffFile(tmp_path / "out" / "a.tif") as tif:
        text = tif.pages.first.description
    assert json.loads(text)["program"] == "napari-cmunet"
    assert str(images) not in text


def test_a_cine_becomes_one_file_with_all_its_frames(run, tmp_path):
    cine = make_cine(PhantomConfig(frames=4, size=64, seed=2)).frames
    tifffile.imwrite(tmp_path / "cine.tif", cine, photometric="minisblack")
    code, _, _ = run(tmp_path / "cine.tif", "-o", tmp_path / "out")
    assert code == 0
    assert tifffile.imread(tmp_path / "out" / "cine.tif").shape == (4, 64, 64)
    assert read_provenance(tmp_path / "out" / "cine.tif").frames == (0, 1, 2, 3)


def test_the_threshold_moves_the_mask(run, images, tmp_path):
    sizes = []
    for threshold in ("0.1", "0.5", "0.9"):
        run(images / "a.tif", "-o", tmp_path / threshold, "--threshold", threshold)
        sizes.append(read_mask(tmp_path / threshold / "a.tif").sum())
    assert sizes[0] > sizes[1] > sizes[2]


def test_the_models_own_threshold_is_the_default(run, images, tiny_model, tmp_path):
    model = load_model(tiny_model)
    card = type(model.card)(**(vars(model.card) | {"threshold": 0.9}))
    save_model(tmp_path / "strict", model.network.state_dict(), card)
    run(images / "a.tif", "-o", tmp_path / "one", model=tmp_path / "strict")
    run(images / "a.tif", "-o", tmp_path / "two", "--threshold", "0.9")
    one, two = (read_mask(tmp_path / name / "a.tif") for name in ("one", "two"))
    assert np.array_equal(one, two)


def test_probability_beside_the_mask(run, images, tmp_path):
    code, printed, _ = run(
        images / "a.tif", "-o", tmp_path / "out", "--probability", "--threshold", "0.4"
    )
    assert (code, len(printed)) == (0, 1)
    probability = tifffile.imread(tmp_path / "out" / "a_probability.tif")
    assert probability.dtype == np.uint8
    assert len(np.unique(probability)) > 20
    assert np.array_equal(read_mask(tmp_path / "out" / "a.tif"), probability >= 102)


def test_same_stems_get_names_of_their_own(run, images, tmp_path):
    shutil.copy(images / "a.tif", images / "b.tif")
    code, printed, _ = run(images / "b.tif", images / "b.png", "-o", tmp_path / "out")
    assert code == 0
    assert len({*printed}) == 2
    assert all(Path(line).is_file() for line in printed)


def test_twice_is_the_same(run, images, tmp_path):
    run(images, "-o", tmp_path / "out")
    before = tifffile.imread(tmp_path / "out" / "a.tif")
    code, _, _ = run(images, "-o", tmp_path / "out")
    assert code == 0
    assert np.array_equal(tifffile.imread(tmp_path / "out" / "a.tif"), before)


def test_an_output_folder_inside_the_input_is_not_walked(run, images):
    for _ in range(2):
        code, printed, _ = run(images, "-o", images / "masks")
        assert (code, len(printed)) == (0, 3)


# Bad input


def bad_inputs(folder: Path, frame: np.ndarray) -> dict[str, bool]:
    """Write one of each kind; names, and whether a mask is expected."""
    good = folder / "whole.tif"
    tifffile.imwrite(good, frame)
    (folder / "truncated.tif").write_bytes(good.read_bytes()[:9000])
    good.unlink()
    (folder / "empty.tif").write_bytes(b"")
    (folder / "text.tif").write_text("this is no image")
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[..., 0] = frame[:64, :64]
    colour[..., 1] = 255 - frame[:64, :64]
    not_finite = frame.astype(np.float32)
    not_finite[10:12, 10:20] = np.nan
    not_finite[20, 20] = np.inf
    rgba = np.dstack([frame, frame, frame, np.full_like(frame, 255)])
    Image.fromarray(colour).save(folder / "colour.png")
    Image.fromarray(rgba).save(folder / "rgba.png")
    Image.fromarray(frame[:1, :1]).save(folder / "one.png")
    for name, array in {
        "thin": np.zeros((1, 20_000), np.uint8),
        "constant": np.full((64, 64), 7, np.uint16),
        "nan": not_finite,
        "all-nan": np.full((64, 64), np.nan, np.float32),
        "float": frame.astype(np.float32) * 1e-3,
        "five": np.zeros((2, 2, 2, 64, 64), np.uint8),
    }.items():
        np.save(folder / f"{name}.npy", array)
    return {
        "truncated.tif": False,
        "empty.tif": False,
        "text.tif": False,
        "colour.png": False,
        "one.png": False,
        "thin.npy": False,
        "all-nan.npy": False,
        "five.npy": False,
        "missing.tif": False,
        "rgba.png": True,
        "constant.npy": True,
        "nan.npy": True,
        "float.npy": True,
    }


def test_one_bad_input_never_stops_the_others(run, frame, tmp_path):
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    expected = bad_inputs(folder, frame)
    code, printed, complaints = run(*(folder / n for n in expected), "-o", out)
    assert code == 1
    done = {name for name, good in expected.items() if good}
    failed = set(expected) - done
    assert {Path(line).stem for line in printed} == {Path(n).stem for n in done}
    assert {p.stem for p in out.iterdir()} == {Path(n).stem for n in done}
    errors = [line for line in complaints if ": note: " not in line]
    assert errors.pop() == f"{len(done)} of {len(expected)} done, {len(failed)} failed."
    assert len(errors) == len(failed)
    for name in failed:
        (line,) = (line for line in errors if line.startswith(f"{name}: "))
        assert "Traceback" not in line
        assert line.endswith(".")
    for name in done:
        mask = tifffile.imread(out / f"{Path(name).stem}.tif")
        assert mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, 255}


def test_a_constant_image_has_no_artery_and_a_note(run, tmp_path):
    np.save(tmp_path / "flat.npy", np.full((100, 90), 1234, np.uint16))
    code, _, notes = run(tmp_path / "flat.npy", "-o", tmp_path / "out")
    assert code == 0
    assert len(notes) == 1
    assert notes[0].startswith("flat.npy: note: ")


def test_an_empty_folder_is_a_failure_that_is_named(run, tmp_path):
    (tmp_path / "nothing").mkdir()
    code, printed, errors = run(tmp_path / "nothing", "-o", tmp_path / "out")
    assert (code, printed) == (1, [])
    assert "nothing: no image was found" in errors[0]


def test_a_frame_that_memory_does_not_suffice_for(run, images, tmp_path, monkeypatch):
    real = Predictor.predict_frames

    def short(self, frames, *args, **kwargs):
        if frames.shape[1] == 128:
            raise MemoryError
        return real(self, frames, *args, **kwargs)

    monkeypatch.setattr(Predictor, "predict_frames", short)
    code, printed, errors = run(
        images / "a.tif", images / "b.png", "-o", tmp_path / "out"
    )
    assert code == 1
    assert [Path(line).stem for line in printed] == ["b"]
    assert errors[0].startswith("a.tif: not enough memory")


def test_notices_of_the_device_are_shown_once(run, images, tmp_path, monkeypatch):
    real = Predictor._run

    def short(self, frames, *args):
        if not self._tiled:
            import torch

            raise torch.OutOfMemoryError
        return real(self, frames, *args)

    monkeypatch.setattr(Predictor, "_run", short)
    code, printed, errors = run(images, "-o", tmp_path / "out")
    assert (code, len(printed)) == (0, 3)
    assert errors == [
        "note: Out of memory: the frame is predicted in tiles from now on."
    ]


# Bad output


def test_an_input_is_never_replaced(run, images):
    before = (images / "a.tif").read_bytes()
    code, printed, errors = run(images / "a.tif", images / "b.png", "-o", images)
    assert code == 1
    assert [Path(line).name for line in printed] == ["b.tif"]
    assert errors[0].startswith("a.tif: it would replace an input")
    assert (images / "a.tif").read_bytes() == before


def test_an_input_is_recognised_through_a_link(run, images, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(images, target_is_directory=True)
    before = (images / "a.tif").read_bytes()
    code, _, errors = run(link / "a.tif", "-o", images)
    assert code == 1
    assert "would replace" in errors[0]
    assert (images / "a.tif").read_bytes() == before


def test_the_input_folder_as_output_is_refused_before_anything(run, images):
    code, printed, errors = run(images, "-o", images)
    assert (code, printed) == (2, [])
    assert len(errors) == 1
    assert "-o" in errors[0]
    assert sorted(p.name for p in images.iterdir()) == [
        "a.tif",
        "b.png",
        "below",
        "notes.txt",
    ]


def test_a_mask_and_a_probability_of_one_name_do_not_replace_each_other(
    run, images, tmp_path
):
    shutil.copy(images / "a.tif", images / "a_probability.tif")
    code, printed, errors = run(
        images / "a.tif", images / "a_probability.tif", "-o", tmp_path, "--probability"
    )
    assert code == 1
    assert [Path(line).name for line in printed] == ["a.tif"]
    assert errors[0].startswith("a_probability.tif: it would replace")
    assert len(np.unique(tifffile.imread(tmp_path / "a_probability.tif"))) > 2


def test_a_file_in_place_of_the_output_folder(run, images, tmp_path, monkeypatch):
    (tmp_path / "out").write_text("mine")
    monkeypatch.setattr(Predictor, "predict_frames", lambda *_: pytest.fail("too late"))
    for out in (tmp_path / "out", tmp_path / "out" / "below"):
        code, printed, errors = run(images, "-o", out)
        assert (code, printed) == (1, [])
        assert len(errors) == 1
        assert "a file is in the way" in errors[0]
    assert (tmp_path / "out").read_text() == "mine"


def test_an_output_folder_that_may_not_be_made(run, images, tmp_path, monkeypatch):
    def refuse(self, *args, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    code, printed, errors = run(images, "-o", tmp_path / "out")
    assert (code, printed, len(errors)) == (1, [], 1)
    assert errors[0].startswith("napari-cmunet: out: writing here is not permitted")


@pytest.mark.parametrize(
    ("code", "told"),
    [(errno.ENOSPC, "disk is full"), (errno.EACCES, "not permitted")],
)
def test_a_disk_that_takes_no_more_leaves_old_masks_whole(
    run, images, tmp_path, monkeypatch, code, told
):
    out = tmp_path / "out"
    out.mkdir()
    (out / "a.tif").write_bytes(b"the mask of yesterday")
    real = os.fsync

    def full(descriptor):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(safe_files.os, "fsync", full)
    status, printed, errors = run(images, "-o", out)
    monkeypatch.setattr(safe_files.os, "fsync", real)
    assert (status, printed) == (1, [])
    # Of three masks, and of the summary.
    assert sum(told in line for line in errors) == 4
    assert (out / "a.tif").read_bytes() == b"the mask of yesterday"
    assert [p.name for p in out.rglob("*") if p.is_file()] == ["a.tif"]


def test_a_file_that_cannot_be_written_stops_no_other(run, images, tmp_path):
    (tmp_path / "out" / "a.tif").mkdir(parents=True)
    (tmp_path / "out" / "a.tif" / "mine").write_text("")
    code, printed, errors = run(images, "-o", tmp_path / "out")
    assert (code, len(printed)) == (1, 2)
    assert "a.tif: a folder of that name is in the way" in errors[0]


def test_ctrl_c_leaves_finished_files_and_nothing_half(
    run, images, tmp_path, monkeypatch
):
    real = segment_module.write_mask

    def interrupted(path, *args):
        if path.name == "b.tif":
            raise KeyboardInterrupt
        real(path, *args)

    monkeypatch.setattr(segment_module, "write_mask", interrupted)
    code, printed, errors = run(images, "-o", tmp_path / "out")
    assert code == 1
    assert [Path(line).name for line in printed] == ["a.tif"]
    assert errors == ["napari-cmunet: stopped; finished files are whole."]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.tif"]


# Models and options


def test_an_unknown_model_is_bad_usage_and_told_the_known_ones(
    run, images, tiny_model, tmp_path, monkeypatch
):
    monkeypatch.setenv("NAPARI_CMUNET_HOME", str(tmp_path))
    shutil.copytree(tiny_model, tmp_path / "models" / "tiny")
    code, printed, errors = run(images, "-o", tmp_path / "out", model="nope")
    assert (code, printed, len(errors)) == (2, [], 1)
    assert "no model named 'nope'. Known models: " in errors[0]
    assert "tiny" in errors[0]
    assert not (tmp_path / "out").exists()
    code, printed, _ = run(images, "-o", tmp_path / "out", model="tiny")
    assert (code, len(printed)) == (0, 3)


def test_a_self_supervised_model_is_refused(run, images, tiny_model, tmp_path):
    ssl = tmp_path / "ssl"
    shutil.copytree(tiny_model, ssl)
    values = json.loads((ssl / "card.json").read_text()) | {"kind": "ssl"}
    (ssl / "card.json").write_text(json.dumps(values))
    code, printed, errors = run(images, "-o", tmp_path / "out", model=ssl)
    assert (code, printed, len(errors)) == (2, [], 1)
    assert "knows no arteries (kind ssl). Fine-tune" in errors[0]


def test_an_altered_model_segments_nothing(run, images, tiny_model, tmp_path):
    model = tmp_path / "altered"
    shutil.copytree(tiny_model, model)
    with (model / "weights.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    code, printed, errors = run(images, "-o", tmp_path / "out", model=model)
    assert (code, printed, len(errors)) == (1, [], 1)
    assert "'altered'" in errors[0]
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_not_there(run, images, tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    code, printed, errors = run(images, "-o", tmp_path / "out", "--device", "cuda")
    assert (code, printed, len(errors)) == (1, [], 1)
    assert "no 'cuda' device" in errors[0]


# As a process


def program(*args) -> list:
    return [sys.executable, "-m", "napari_cmunet", "segment", *args]


def environment(**values) -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"} | values


def test_as_a_process_of_little_memory(images, tiny_model, tmp_path):
    """Only paths on stdout; file names that are no text; below 1.5 GB."""
    resource = pytest.importorskip("resource")
    big = np.tile(tifffile.imread(images / "a.tif"), (4, 4))
    Image.fromarray(big).save(images / "big.png")
    if sys.platform == "linux":
        shutil.copy(images / "a.tif", os.fsencode(images) + b"/\xff.tif")
    done = subprocess.run(
        program(images, "-o", tmp_path / "out", "--model", tiny_model),
        env=environment(PYTHONIOENCODING="utf-8:strict"),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    paths = [Path(os.fsdecode(line)) for line in done.stdout.splitlines()]
    assert len(paths) == (5 if sys.platform == "linux" else 4)
    assert all(path.is_file() for path in paths)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    assert peak * (1 if sys.platform == "darwin" else 1024) < 1.5e9


def test_a_reader_of_stdout_that_goes_away(images, tiny_model, tmp_path):
    """``segment … | head`` ends without a traceback, its files whole."""
    with subprocess.Popen(
        program(images, "-o", tmp_path / "out", "--model", tiny_model),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        process.stdout.close()
        errors = process.stderr.read()
        assert process.wait(60) == 1
    assert errors == b""
    for path in (tmp_path / "out").rglob("*.tif"):
        read_mask(path)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_memory_does_not_grow_with_the_number_of_files(run, frame, tmp_path):
    def resident() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    for number in range(30):
        Image.fromarray(np.roll(frame, number)).save(tmp_path / f"{number:02}.png")
    files = sorted(tmp_path.glob("*.png"))
    run(*files[:5], "-o", tmp_path / "out")
    before = resident()
    run(*files, "-o", tmp_path / "out")
    # A kept frame would be 16 kB, a kept float map of the network's 1 MB and more.
    assert resident() - before < 5e6


def test_inverted_images_are_segmented_as_their_originals(run, tmp_path, frame):
    np.save(tmp_path / "a.npy", frame)
    np.save(tmp_path / "b.npy", 255 - frame)
    run(tmp_path / "a.npy", "-o", tmp_path / "out")
    code, _, _ = run(tmp_path / "b.npy", "-o", tmp_path / "out", "--invert")
    assert code == 0
    original, inverted = (tmp_path / "out" / f"{name}.tif" for name in "ab")
    assert np.array_equal(read_mask(original), read_mask(inverted))
    assert read_provenance(inverted).inverted
    # A mask of the image as it is stored is another one.
    code, _, errors = run(tmp_path / "b.npy", "-o", tmp_path / "out")
    assert not any("there already" in line for line in errors)
    assert not read_provenance(inverted).inverted
    assert any("its arteries seem to be bright" in line for line in errors)
