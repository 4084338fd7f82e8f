"""napari writer: one Labels layer to a mask TIFF."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

METADATA_KEY = "napari_cmunet"


def write_mask_tiff(path: str, data: Any, attributes: Mapping[str, Any]) -> list[str]:
    """Write a Labels layer as mask TIFF; any label above 0 counts as artery.

    Of a prediction, 1 alone: 2 is what was there before the contrast.

    ``attributes["metadata"]["napari_cmunet"]`` may hold the provenance, as
    ``Provenance.to_dict`` gives it, and beside it ``"pixel_size_mm": [y, x]`` or
    ``"scale_unit": "mm"``. The layer's scale is taken for a pixel size only with the
    latter or where the layer's own units are millimetres.

    Returns
    -------
    list of str
        The path that was written.

    Raises
    ------
    WriteError
        If the data are no mask or the file could not be written.
    """
    import numpy as np

    from napari_cmunet.errors import WriteError
    from napari_cmunet.io.masks.files import write_mask

    target = Path(path)
    if target.suffix.lower() not in (".tif", ".tiff"):
        target = target.with_name(target.name + ".tif")
    if isinstance(data, (list, tuple)):  # multiscale: the first level is the full one
        data = data[0]
    labels = np.asarray(data)
    if labels.ndim not in (2, 3):
        raise WriteError(
            target,
            f"this layer has {labels.ndim} axes; a mask has 2 (rows, columns) or 3 "
            f"(frames, rows, columns). Save one frame or cine at a time.",
        )
    metadata = attributes.get("metadata") or {}
    record = metadata.get(METADATA_KEY)
    record = record if isinstance(record, Mapping) else {}
    write_mask(
        target,
        labels == 1 if record.get("role") == "prediction" else labels > 0,
        _provenance(record),
        _pixel_size_mm(record, attributes),
    )
    return [str(target)]


def _provenance(record: Mapping[str, Any]) -> Any:
    from napari_cmunet.io.provenance import Provenance

    try:
        return Provenance.from_dict(record)
    except ValueError:
        # Not one of our predictions: somebody drew it.
        return Provenance(corrected=True)


def _pixel_size_mm(
    record: Mapping[str, Any], attributes: Mapping[str, Any]
) -> tuple[float, float] | None:
    size = record.get("pixel_size_mm")
    if size is None and (
        record.get("scale_unit") == "mm" or _in_millimetres(attributes.get("units"))
    ):
        size = attributes.get("scale")
    try:
        height, width = (abs(float(value)) for value in list(size or ())[-2:])
    except (TypeError, ValueError):
        return None
    return (height, width) if height > 0 and width > 0 else None


def _in_millimetres(units: Any) -> bool:
    """Whether the units of rows and columns, as napari has them, are millimetres."""
    if not isinstance(units, (list, tuple)) or len(units) < 2:
        return False
    return all(str(unit) in ("mm", "millimeter") for unit in units[-2:])
