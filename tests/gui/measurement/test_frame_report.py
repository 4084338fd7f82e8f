"""The report of the shown frame, saved from the panel."""

from __future__ import annotations

import re

import numpy as np
import pytest
from qtpy.QtWidgets import QFileDialog

from napari_cmunet.gui.images.layers import METADATA
from tests.gui.measurement.test_measurement import (
    Measuring,
    angiogram,
    stenosed,
)


@pytest.fixture
def save(qtbot, monkeypatch):
    """Press the button, answer with a path and wait."""

    def save(section, path):
        monkeypatch.setattr(
            QFileDialog, "getSaveFileName", lambda *a, **k: (str(path), "")
        )
        section.report.click()
        qtbot.waitUntil(lambda: not section.saver.running, timeout=20_000)

    return save


@pytest.mark.slow
def test_the_report_has_the_reader_s_change(
    qtbot, viewer, panel, controller, settled, save, tmp_path
):
    record = {
        "pixel_size_mm": (0.2, 0.2),
        "pixel_size_source": "from a 6 F catheter",
        "pixel_size_error": 0.03,
    }
    section = panel.measuring
    assert not section.report.isEnabled()
    viewer.add_image(
        np.stack([angiogram(stenosed())] * 2),
        scale=(1, 0.2, 0.2),
        metadata={METADATA: record},
        name="cine",
    )
    settled(controller)
    measuring = Measuring(qtbot, viewer, panel)
    viewer.dims.set_point(0, 1)
    measuring.between()
    assert section.report.isEnabled()
    state = controller.active
    at = measuring.measurement.analysis.narrowest.at + 20
    columns = np.arange(at - 6, at + 7)
    tops = state.mask_frame(1)[:, columns].argmax(axis=0)
    rows = np.concatenate([tops, tops + 1])
    state.write(1, (rows, np.tile(columns, 2)), 0)
    measuring.settle()
    save(section, tmp_path / "mine")  # the suffix is added
    path = tmp_path / "mine.html"
    assert section.message.text().startswith("Saved mine.html to ")
    text = path.read_text("utf-8")
    former, now = re.search(r"<td>(\d+) → <b>(\d+)</b>&nbsp;%</td>", text).groups()
    shown = measuring.number("%DS")
    assert (f"{former} %", f"{now} %") == tuple(re.findall(r"\d+ %", shown))
    assert "<h2>cine, frame 1</h2>" in text
    assert "0.2 mm ± 3.0 %, from a 6 F catheter" in text
    assert "added 0.0 mm², removed 1.0 mm²" in text  # 26 pixels
    assert "data:image/png;base64," in text
    viewer.dims.set_point(0, 0)
    section.refresh()
    assert "Saved" not in section.message.text()
    assert section.saver._of is None  # an image that is closed is let go


def test_without_a_measurement_the_whole_tree_is_reported(
    qtbot, viewer, panel, controller, settled, save, tmp_path
):
    viewer.add_image(angiogram(stenosed()), name="a")
    settled(controller)
    save(panel.measuring, tmp_path / "a.html")
    text = (tmp_path / "a.html").read_text("utf-8")
    assert "<td>program</td>" in text
    assert "<th>Correction</th><td>none</td>" in text
    assert "&nbsp;px" in text


def test_a_cancelled_dialog_saves_nothing(viewer, panel, controller, settled, save):
    viewer.add_image(angiogram(stenosed()), name="a")
    settled(controller)
    save(panel.measuring, "")
    assert panel.measuring.message.text() == ""


def test_what_cannot_be_written_is_said(
    viewer, panel, controller, settled, save, tmp_path
):
    viewer.add_image(angiogram(stenosed()), name="a")
    settled(controller)
    save(panel.measuring, tmp_path / "missing" / "a.html")
    assert "a.html" in panel.measuring.message.text()
