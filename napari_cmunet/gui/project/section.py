"""Project section of the panel: open a project, accept labels, go between images."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontMetrics
from qtpy.QtWidgets import (
    QFrame,
    QLabel,
    QMenu,
    QProgressBar,
    QWidget,
)
from superqt import QElidingLabel

from napari_cmunet.gui.project.actions import ProjectActions
from napari_cmunet.gui.project.images.image_list import (
    ALL,
    FLAGGED,
    SKIPPED,
    UNLABELLED,
    CommentLine,
    ImageList,
    OrderMenu,
)
from napari_cmunet.gui.project.import_masks import LabelsMenu
from napari_cmunet.gui.project.readers.reader_menu import ReaderMenu
from napari_cmunet.gui.project.readers.review import ReviewBox
from napari_cmunet.gui.project.reviewed_area import BOX, LASSO
from napari_cmunet.gui.project.section_state import SectionState, describe_project
from napari_cmunet.gui.widgets import (
    Fold,
    WorkBar,
    add_action,
    button,
    column,
    combo,
    embolden,
    group,
    plain_tip,
    row,
    text_label,
)

if TYPE_CHECKING:
    from napari_cmunet.gui.project.alerts import Alert
    from napari_cmunet.gui.project.session import ProjectSession

_WELCOME = (
    "Masks that you accept become labels, kept in a project. The model can learn from "
    "them."
)


class ProjectSection(QWidget):
    """Shows a session's project and does what is clicked."""

    def __init__(self, session: ProjectSession) -> None:
        super().__init__()
        self._session = session
        self.alert = AlertBox()
        self.work = WorkBar("Stop this")
        self.work_text = text_label()
        self.message = text_label()
        self.start = StartPage()
        self.page = ProjectPage(session)
        self.setLayout(column(self.start, self.page))
        #: What comes and goes. Put below what scrolls, where it moves nothing.
        self.notices = column(self.alert, self.work_text, self.work, self.message)
        self.commands = ProjectActions(session, self, self.page.list.chosen_images)
        self._connect()

    def _connect(self) -> None:
        commands, menu = self.commands, self.page.menu_items
        self.work.cancel.clicked.connect(self._on_cancel)
        self.page.add_other.clicked.connect(commands.add_selected)
        self.start.new.clicked.connect(commands.choose_folder)
        self.start.these.clicked.connect(commands.use_open_images)
        self.start.masks.clicked.connect(commands.import_masks)
        self.start.recent.aboutToShow.connect(
            lambda: commands.fill_recent(self.start.recent)
        )
        for text, act in (
            ("Versions of this label…", commands.show_versions),
            ("Add a folder of images…", commands.add_images),
            ("Import masks…", commands.import_masks),
            ("Export accepted masks…", commands.export),
            ("Show where the images are…", commands.show_images_folder),
            ("Another project…", commands.choose_folder),
            ("Close the project", commands.close),
        ):
            add_action(menu, text, act=act)
        self.order = OrderMenu(self._session.image_order, self)
        menu.insertMenu(menu.actions()[0], self.order)
        self.readers = ReaderMenu(self._session, self)
        menu.insertMenu(menu.actions()[2], self.readers)
        self.layers = LabelsMenu(self._session, self)
        texts = [action.text() for action in menu.actions()]
        after = menu.actions()[texts.index("Import masks…") + 1]
        menu.insertMenu(after, self.layers)

    def _on_cancel(self) -> None:
        if self._session.job is not None:
            self._session.job.cancel()

    def refresh(self) -> SectionState:
        """Show the session's state as it is now, and return it."""
        self._session.review.update()
        state = describe_project(self._session)
        self.alert.show_alert(state.alert)
        self.work.show_work(bool(state.busy), state.done, state.total)
        self.work.cancel.setEnabled(not state.cancelling)
        text = "Cancelling…" if state.cancelling else f"{state.busy}…"
        self.work_text.setText(text if state.busy else "")
        self.work_text.setVisible(bool(state.busy))
        self.message.setText(state.message)
        self.message.setToolTip(state.message_tip)
        self.message.setVisible(bool(state.message))
        self.start.setEnabled(not state.busy)
        for widget in (self.start.these, self.start.masks):
            widget.setEnabled(bool(self._session.controller.image_states))
        self.start.setVisible(not state.is_open)
        self.page.setVisible(state.is_open)
        if state.is_open:
            self.page.show_state(state)
        return state


class StartPage(QWidget):
    """Shown while no project is open: create or open one."""

    def __init__(self) -> None:
        super().__init__()
        self.new = button(
            "&Folder of angiograms…",
            "Make a project of a folder, or open the project in it. It keeps your "
            "labels",
        )
        self.these = button(
            "Project of these images",
            "Make a project of the images that are open now",
        )
        self.masks = button(
            "Masks from files…",
            "Load masks of other programs for the open images, to correct them",
        )
        self.open = button("Open a pro&ject", "Go on with a project where you left off")
        self.recent = QMenu(self)
        self.open.setMenu(self.recent)
        self.setLayout(
            column(text_label(_WELCOME), self.new, self.these, self.open, self.masks)
        )


class ProjectPage(QWidget):
    """Shown while a project is open: its images, Accept, and the review."""

    def __init__(self, session: ProjectSession) -> None:
        super().__init__()
        self._session = session
        self._shown = SectionState()
        self.title = QElidingLabel()
        self.title.setTextFormat(Qt.TextFormat.PlainText)
        self.to_training = button("Fine-tune ↓", "Go to the section Fine-tune below")
        self.menu = button("More", "Add images, export, close the project")
        self.menu_items = QMenu(self)
        self.menu.setMenu(self.menu_items)
        self.bar = QProgressBar()
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(6)
        self.progress = text_label()
        self.annotation_time = text_label()
        self.name = QElidingLabel()
        self.name.setTextFormat(Qt.TextFormat.PlainText)
        self.accept = button("&Accept", "Save this mask as a label (K)")
        embolden(self.accept)
        self.accept_next = button(
            "and next [D]", "Save this mask as a label and open the next image (D)"
        )
        for widget in (self.accept, self.accept_next):
            widget.setMinimumHeight(34)
        self.label = text_label()
        self.label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.add_other = button(
            "Add to project", "Make the selected image one of the project's"
        )
        self.leave_other = button(
            "Back to project", "Show the project's image again; the other stays open"
        )
        self.previous = button("Pre&vious", "The image before this one (Shift+N)")
        self.next = button(
            "Ne&xt   [N]", "The next image without a label, pre-segmented (N)"
        )
        self.skip = button(
            "S&kip image", "Leave this image out and go on (W)", checkable=True
        )
        self.flag = button(
            "F&lag", "Mark this image for a second look (U)", checkable=True
        )
        self.back = button(
            "Take &back",
            "Withdraw the label of this frame; the mask stays as a draft (Shift+K)",
        )
        self.box = button(
            "Box", "Draw a box: only what is inside, and what you paint, counts (R)"
        )
        self.lasso = button(
            "Lasso",
            "Draw around what you have reviewed: only that, and what you paint, counts",
        )
        self.looked = button(
            "Looked at",
            "Only what you looked at with Q, removed as no artery or painted counts; "
            "nothing is learned from the rest",
            checkable=True,
        )
        self.whole = button(
            "Whole", "The whole frame counts as reviewed", checkable=True
        )
        self._areas = (self.box, self.lasso, self.looked, self.whole)
        self.change = text_label()
        self.hide_change = button(
            "Hide differences", "Hide what the new model finds differently"
        )
        self.take_over = button(
            "Use new prediction",
            "Replace the mask of this frame by the new prediction. Can be undone",
        )
        self.comment = CommentLine()
        self.list = ImageList()
        self.filter = combo("Which images of the project the list shows")
        for which in (ALL, UNLABELLED, FLAGGED, SKIPPED):
            self.filter.addItem(which, which)
        self.images = Fold(
            "Images of the project",
            column(self.list, row(self.filter, self.comment, stretch=1)),
        )
        self.review = ReviewBox(session.review)
        self.changes = group(
            column(self.change, row(self.take_over, self.hide_change, stretch=0))
        )
        self.others = group(row(self.leave_other, self.add_other, stretch=0))
        self.setLayout(
            column(
                row(self.title, self.to_training, self.menu, stretch=0),
                self.bar,
                self.progress,
                self.annotation_time,
                self.name,
                row(self.accept, self.accept_next, stretch=0),
                self.label,
                self.others,
                self.review,
                row(self.previous, self.next, stretch=1),
                row(self.skip, self.flag, self.back, stretch=2),
                row(QLabel("Reviewed"), *self._areas, stretch=0),
                self.changes,
            )
        )
        self._connect()

    def _connect(self) -> None:
        session = self._session
        self.accept.clicked.connect(self._on_accept)
        self.accept_next.clicked.connect(session.accept_and_next)
        self.filter.activated.connect(
            lambda: self.list.show_only(self.filter.currentData())
        )
        self.next.clicked.connect(session.navigator.next)
        self.previous.clicked.connect(session.navigator.previous)
        self.skip.clicked.connect(session.annotation.skip)
        self.flag.clicked.connect(session.annotation.flag)
        self.back.clicked.connect(session.annotation.take_back)
        self.leave_other.clicked.connect(session.annotation.go_back)
        self.box.clicked.connect(lambda: session.annotation.draw_area(BOX))
        self.lasso.clicked.connect(lambda: session.annotation.draw_area(LASSO))
        self.looked.clicked.connect(session.annotation.review_looked_at)
        self.whole.clicked.connect(session.annotation.review_all)
        self.hide_change.clicked.connect(session.preview.hide_change)
        self.take_over.clicked.connect(session.preview.use_new_prediction)
        self.list.chosen.connect(session.navigator.go)
        self.comment.editingFinished.connect(self._on_comment)

    def _on_accept(self) -> None:
        self._session.annotation.accept()

    def _on_comment(self) -> None:
        # Of the image that is shown here, whatever is opened meanwhile.
        if self._shown.image:
            self._session.annotation.comment(self._shown.image, self.comment.text())

    def show_state(self, state: SectionState) -> None:
        """Show a project."""
        if state.image != self._shown.image and self.comment.isModified():
            self._on_comment()
        other = state.image != self._shown.image
        self._shown = state
        self.title.setText(state.title)
        self.title.setToolTip(plain_tip(f"The project “{state.title}”"))
        self.bar.setRange(0, max(1, state.images))
        self.bar.setValue(state.labelled)
        self.progress.setText(state.progress)
        self.annotation_time.setText(state.annotation_time)
        self.annotation_time.setToolTip(state.annotation_time_tip)
        self.annotation_time.setVisible(bool(state.annotation_time))
        # Nested as this is, Qt gives a label that wraps too little room.
        high = self.annotation_time.heightForWidth(self.annotation_time.width())
        self.annotation_time.setMinimumHeight(max(0, high))
        self.name.setText(" · ".join(t for t in (state.place, state.name) if t))
        self.name.setToolTip(plain_tip(state.name))
        self.accept.setText(f"{state.accept_text}   [K]")
        self.accept.setEnabled(state.can_accept)
        self.accept_next.setEnabled(state.can_accept)
        self.label.setText(state.label)
        font = self.label.font()
        font.setBold(True)
        # Room for two lines, so that the buttons below stay where they are.
        lines = QFontMetrics(font).boundingRect(0, 0, 400, 400, 0, "A\nA").height()
        self.label.setMinimumHeight(lines + 2)
        embolden(self.label, state.saved)
        self.others.setVisible(state.other_is_selected)
        self.add_other.setEnabled(state.can_add)
        for widget in (self.previous, self.next):
            widget.setEnabled(state.can_move)
        for marked in (self.skip, self.flag, self.comment):
            marked.setEnabled(state.can_flag)
        self.skip.setChecked(state.skipped)
        self.flag.setChecked(state.flagged)
        self.flag.setText("F&lagged" if state.flagged else "F&lag")
        self.skip.setText("S&kipped" if state.skipped else "S&kip image")
        self.back.setEnabled(state.can_take_back)
        for widget in (self.box, self.lasso):
            widget.setEnabled(state.can_draw)
        self.looked.setEnabled(state.can_draw)
        self.looked.setChecked(state.is_by_looking)
        self.whole.setEnabled(state.can_draw)
        self.whole.setChecked(not state.is_part)
        self.change.setText(state.change)
        self.changes.setVisible(bool(state.change))
        self.take_over.setVisible(state.has_changed)
        if other or not self.comment.isModified():
            self.comment.show_comment(state.comment)
        self.review.show_readings()
        self.list.show_images(self._session.overview, state.image)


class AlertBox(QFrame):
    """An alert with its actions as buttons."""

    def __init__(self) -> None:
        super().__init__()
        self.setFrameShape(QFrame.Shape.StyledPanel)
        self.text = text_label()
        self._buttons = QWidget()
        layout = column(self.text, self._buttons)
        layout.setContentsMargins(6, 4, 6, 6)
        self.setLayout(layout)
        self._shown: Alert | None = None
        self.hide()

    def show_alert(self, alert: Alert | None) -> None:
        """Show an alert, or nothing."""
        if alert is self._shown:
            return
        self._shown = alert
        self.setVisible(alert is not None)
        if alert is None:
            return
        self.text.setText(alert.text)
        embolden(self.text, alert.serious)
        made = []
        for action in alert.actions:
            one = button(action.text, action.tip)
            one.clicked.connect(lambda _=False, act=action.act: act())
            made.append(one)
        buttons = group(column(*made))
        layout = self.layout()
        assert layout is not None
        layout.replaceWidget(self._buttons, buttons)
        self._buttons.deleteLater()
        self._buttons = buttons
