"""The section by its buttons: with a real project, in a panel and in a real window."""

from __future__ import annotations

import shutil

import pytest
from qtpy.QtCore import QTimer
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QLabel, QMessageBox

from napari_cmunet.gui.training.section import FinetuneSection, ask_before_ending
from tests.gui.training.conftest import settled, wait_until

pytestmark = pytest.mark.slow

LONG = {"steps": 100000}


@pytest.fixture
def section(qtbot):
    made = FinetuneSection()
    qtbot.addWidget(made)
    return made


def refreshed(section) -> None:
    assert wait_until(lambda: not section._soon.isActive())


def test_without_a_project_it_says_what_to_do(section):
    assert not section.isEnabled()
    assert "project" in section.labels.text()
    assert section.status.isHidden()


def test_start_and_cancel_by_the_buttons(section, make_project, make_training, qtbot):
    project = make_project(3)
    training = make_training(project, **LONG)
    section.set_training(training)
    assert section.labels.text() == "3 labels of 3 patients."
    section.start.click()
    assert training.running
    refreshed(section)
    assert section.start.isHidden()
    assert not section.stop.isEnabled()  # nothing to keep yet
    assert wait_until(lambda: section.stop.isEnabled())
    assert not section.plot.isHidden()
    assert not section.options.form.isEnabled()
    section.resize(300, 600)
    section.show()
    assert section.grab().width() <= 300 or section.minimumSizeHint().width() <= 300
    section.cancel.click()
    settled(training)
    refreshed(section)
    assert section.status.text().startswith("Cancelled.")
    assert not section.start.isHidden()
    assert not section.plot.isHidden()  # to be looked at
    section.set_training(make_training(project))  # another project is open
    assert section.plot.isHidden()


def test_options_are_kept_with_the_project(section, make_project, make_training):
    project = make_project(1)
    training = make_training(project)
    section.set_training(training)
    section.options.boxes["start"].value = "current"
    section.options.boxes["minutes"].value = 5.0
    section.options.boxes["finetune_every"].value = 10
    settled(training)
    settings = project.settings
    assert (settings.start, settings.minutes, settings.finetune_every) == (
        "current",
        5.0,
        10,
    )
    project.change_settings(minutes=7.0, start="tuned-007")  # not among the usual ones
    section.refresh()
    assert section.options.boxes["minutes"].value == 7.0
    assert section.options.boxes["start"].value == "tuned-007"


def test_a_model_that_is_not_better_is_used_after_a_question_only(
    section, make_project, make_training, tiny_model, monkeypatch
):
    project = make_project(2)
    with project.models.new_folder() as new:
        shutil.copytree(tiny_model, new.folder, dirs_exist_ok=True)
        new.note_training({"version": 1, "labels": [], "learned_patients": []})
        new.finish("weak")
    project.models.refuse("weak", "not better")
    training = make_training(project)
    section.set_training(training)
    settled(training)
    refreshed(section)
    index = section.version.findText("weak")
    asked: list[str] = []

    def answer(which: int):
        def exec_(box) -> int:
            asked.append(box.text())
            box.buttons()[which].click()
            return 0

        return exec_

    for which, used in ((1, tiny_model.name), (0, "weak")):
        monkeypatch.setattr(QMessageBox, "exec", answer(which))
        section.version.chosen.emit(index)
        settled(training)
        refreshed(section)
        assert project.models.current.name == used
        assert section.version.currentText() == used
    assert asked == ["Use weak all the same?"] * 2
    section.version.chosen.emit(section.version.findText("cmunet-artery"))
    settled(training)
    assert project.models.current.name == "cmunet-artery"
    assert len(asked) == 2  # one that was in use needs no question


def test_versions_by_the_buttons(section, make_project, make_training, add_model):
    project = make_project(2)
    add_model(project, "good", knows_arteries=True)
    add_model(project, "weak", knows_arteries=False)
    training = make_training(project)
    section.set_training(training)
    refreshed(section)
    assert section.version.currentText() == "weak"
    section.back.click()
    settled(training)
    refreshed(section)
    assert project.models.current.name == "good"
    assert section.version.currentText() == "good"
    section.forward.click()
    settled(training)
    assert project.models.current.name == "weak"
    section.version.chosen.emit(0)
    settled(training)
    refreshed(section)
    assert project.models.current.name == "cmunet-artery"
    assert not section.back.isEnabled()


def test_closing_asks_once(section, make_project, make_training, monkeypatch):
    training = make_training(make_project(1), **LONG)
    asked = []
    monkeypatch.setattr(QMessageBox, "exec", lambda box: asked.append(box.text()))
    assert ask_before_ending(training, section)
    assert not asked
    training.start()
    press = {"text": "Go on"}
    monkeypatch.setattr(
        QMessageBox,
        "clickedButton",
        lambda box: next(b for b in box.buttons() if b.text() == press["text"]),
    )
    assert not ask_before_ending(training, section)
    press["text"] = "End the training"
    assert ask_before_ending(training, section)
    assert len(asked) == 2


def test_closing_napari_asks_once_and_ends_the_training(
    make_napari_viewer_proxy, make_project, make_training, qtbot, clock, monkeypatch
):
    viewer = make_napari_viewer_proxy(show=True)
    project = make_project(2)
    training = make_training(project, **LONG)
    section = FinetuneSection(training)
    viewer.window.add_dock_widget(section, name="Fine-tune", area="right")
    section.start.click()
    assert wait_until(lambda: section.stop.isEnabled())
    window, questions = section.window(), []
    # napari's spinner turns, but seldom has the window drawn anew.
    movies = [label.movie() for label in window.findChildren(QLabel)]
    assert [movie.speed() for movie in movies if movie is not None] == [10]

    def answer() -> None:
        dialog = QApplication.activeModalWidget()
        if dialog is not None:
            texts = [x.text() for x in dialog.findChildren(QLabel)]
            questions.append(" ".join(texts))
            dialog.accept()

    QTimer.singleShot(300, answer)
    with clock(2.3):
        window.closeEvent(ClickOnTheCross())
        assert wait_until(lambda: not training.running)
    assert len(questions) == 1
    assert "fine-tuning of CM-UNet" in questions[0]


class ClickOnTheCross(QCloseEvent):
    """Only when the window system asks, and not the program, napari asks back."""

    def spontaneous(self) -> bool:
        return True
