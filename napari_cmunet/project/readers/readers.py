"""The readers of a project: codes, folders, and their names on this computer.

The first reader's labels lie in the project's folder; each further reader has a folder
of the same kind in ``readers``, named by a salted hash of the name that the reader has
chosen. The name itself is kept with the user's own data, as the places of images are.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from napari_cmunet.errors import CMUNetError, ProjectError
from napari_cmunet.model.registry import user_folder
from napari_cmunet.project.files import inside, names_in, read_valid
from napari_cmunet.util.safe_files import make_folder, write_json

if TYPE_CHECKING:
    from pathlib import Path

READERS = "readers"
FIRST_READER = ""
REVIEWER = "reviewer"
"""Code of the one who decides where readers differ."""

_READER = re.compile(rf"[0-9a-f]{{8}}|{REVIEWER}")
_NAMES = "readers.json"


def is_reader(value: object) -> bool:
    """Whether a value is the code of a further reader."""
    return isinstance(value, str) and _READER.fullmatch(value) is not None


def reader_root(folder: Path, reader: str) -> Path:
    """Return the folder of a reader's labels, drafts and flags.

    Raises
    ------
    ProjectError
        If it is a link, or the code is none.
    """
    if reader == FIRST_READER:
        return folder
    if not is_reader(reader):
        raise ProjectError("The reader's code is not valid.")
    return inside(folder, READERS, reader)


def readers_on_disk(folder: Path) -> list[str]:
    """Return the codes of all readers but the first; raises ProjectError."""
    return [name for name in names_in(inside(folder, READERS)) if is_reader(name)]


def reader_code(salt: bytes, name: str) -> str:
    """Return the salted hash that stands for a reader in the project."""
    text = f"reader {unicodedata.normalize('NFC', name.strip()).casefold()}"
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:8]


# -- on this computer --------------------------------------------------------------


@dataclass
class KnownReaders:
    """The readers of a project, as this computer knows them."""

    names: dict[str, Annotated[str, Field(max_length=80)]] = field(default_factory=dict)
    current: str = FIRST_READER  # who read last

    def name(self, reader: str) -> str:
        """Return what a reader is called in the window and in reports."""
        given = {FIRST_READER: "first reader", REVIEWER: "reviewer"}
        return self.names.get(reader) or given.get(reader) or f"reader {reader[:4]}"


_KNOWN = TypeAdapter(dict[str, KnownReaders])


def known_readers(project_id: str) -> KnownReaders:
    """Return what this computer knows of a project's readers; never raises."""
    try:
        known = read_valid(user_folder() / _NAMES, "projects", _KNOWN).get(project_id)
    except CMUNetError:
        known = None
    known = known or KnownReaders()
    return KnownReaders(
        {k: v for k, v in known.names.items() if k == FIRST_READER or is_reader(k)},
        known.current if is_reader(known.current) else FIRST_READER,
    )


def note_reader(project_id: str, reader: str, name: str = "") -> None:
    """Note who reads a project now, and the name; raises WriteError."""
    try:
        projects = read_valid(user_folder() / _NAMES, "projects", _KNOWN)
    except CMUNetError:
        projects = {}
    known = known_readers(project_id)
    known.current = reader
    if name.strip():
        known.names[reader] = name.strip()[:80]
    projects[project_id] = known
    make_folder(user_folder())
    values = {"version": 1, "projects": _KNOWN.dump_python(projects)}
    write_json(user_folder() / _NAMES, values)
