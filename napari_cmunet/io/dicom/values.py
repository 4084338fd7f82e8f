"""Read values of a DICOM header as tolerantly as is safe.

A blank value counts as absent, and so does a value that cannot be read. A number is
read from the whole of its text or not at all; a decimal comma is accepted.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from pydicom.datadict import dictionary_VR
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag

if TYPE_CHECKING:
    from pydicom import Dataset

_TEXT = frozenset("AE AS CS DA DS DT IS LO LT PN SH ST TM UC UI UR UT".split())
_NUMBER = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_BLANK = " \t\r\n\0"


def numbers(dataset: Dataset, keyword: str) -> list[float | None]:
    """Return the finite numbers of an element; None where one cannot be read."""
    raw = _raw(dataset, keyword)
    if raw is None:
        return []
    value, vr = raw
    if isinstance(value, bytes) and vr in _TEXT:
        return _parse(value.decode("latin-1"))
    value = value_of(dataset, keyword)
    if isinstance(value, str):
        return _parse(value)
    if isinstance(value, (int, float)):
        value = [value]
    try:
        return [_finite(item) for item in value or ()]
    except TypeError:
        return []


def number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first number of an element, or None."""
    found = numbers(dataset, keyword)
    return found[0] if found else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return the first number of an element if it is an integer, or None."""
    value = number(dataset, keyword)
    return None if value is None or not value.is_integer() else int(value)


def text(dataset: Dataset, keyword: str) -> str:
    """Return the first value of an element as upper-case text; empty if absent."""
    value = value_of(dataset, keyword)
    if not isinstance(value, str) and hasattr(value, "__getitem__") and len(value):
        value = value[0]
    return value.strip(_BLANK).upper() if isinstance(value, str) else ""


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty if there is none."""
    value = value_of(dataset, keyword)
    return list(value) if isinstance(value, DicomSequence) else []


def content(dataset: Dataset, keyword: str) -> tuple[bytes, bool, str]:
    """Return the bytes of an element, if they are little endian, and its VR."""
    try:
        element = dataset.get_item(Tag(keyword), keep_deferred=True)
    except Exception:  # noqa: BLE001
        return b"", True, ""
    value = getattr(element, "value", None)
    if not isinstance(value, bytes):
        return b"", True, ""
    return value, getattr(element, "is_little_endian", True), element.VR or ""


def _raw(dataset: Dataset, keyword: str) -> tuple[Any, str] | None:
    """Return an element's unconverted value and its VR."""
    tag = Tag(keyword)
    try:
        element = dataset.get_item(tag, keep_deferred=True)
    except Exception:  # noqa: BLE001
        return None
    if element is None or element.value is None:
        return None
    vr = element.VR
    return element.value, dictionary_VR(tag) if vr in (None, "UN") else str(vr)


def value_of(dataset: Dataset, keyword: str) -> Any:
    """Return the value that pydicom makes of an element; None if it cannot."""
    try:
        return dataset.get(keyword)
    except Exception:  # noqa: BLE001 - whatever pydicom raises for a bad value
        return None


def _parse(value: str) -> list[float | None]:
    stripped = value.strip(_BLANK)
    if not stripped:
        return []
    return [_number(part.strip(_BLANK)) for part in stripped.split("\\")]


def _number(part: str) -> float | None:
    if not _NUMBER.fullmatch(part):
        return None
    return _finite(float(part.replace(",", ".")))


def _finite(value: Any) -> float | None:
    if isinstance(value, str):
        return _number(value.strip(_BLANK))
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None
