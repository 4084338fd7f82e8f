"""Arguments that several commands share. Imports neither torch nor napari."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.model.device import DEVICES
from napari_cmunet.model.registry import DEFAULT_MODEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def add_output(p: argparse.ArgumentParser, text: str | None = None) -> None:
    """``-o``, the folder of the results."""
    p.add_argument("-o", "--output", required=True, type=Path, metavar="DIR", help=text)


def add_project(p: argparse.ArgumentParser) -> None:
    """The folder of a project."""
    p.add_argument("project", type=Path, metavar="PROJECT")


def add_json(p: argparse.ArgumentParser) -> None:
    """``--json``."""
    p.add_argument("--json", type=Path, metavar="FILE", help="all figures")


def add_flags(p: argparse.ArgumentParser, *flags: tuple[str, str]) -> None:
    """Options without a value: name and help of each."""
    for name, text in flags:
        p.add_argument(name, action="store_true", help=text)


def add_large_masks(p: argparse.ArgumentParser) -> None:
    """``--large-masks``."""
    p.add_argument(
        "--large-masks",
        choices=("refuse", "keep", "invert"),
        default="refuse",
        help="masks that are artery for more than a third of a frame: leave them out, "
        "take them as they are, or exchange artery and background",
    )


def add_label_options(p: argparse.ArgumentParser) -> None:
    """``--large-masks`` and ``--patients``."""
    add_large_masks(p)
    p.add_argument(
        "--patients", type=Path, metavar="CSV", help="columns 'stem' and 'patient'"
    )


def add_events(p: argparse.ArgumentParser) -> None:
    """``--events``."""
    p.add_argument(
        "--events", default="", metavar="FILE|-", help="progress as JSON lines"
    )


def add_model_options(p: argparse.ArgumentParser) -> None:
    """``--model`` and ``--device``."""
    p.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        metavar="NAME|DIR",
        help=f"default: {DEFAULT_MODEL}",
    )
    add_device_option(p)


def add_device_option(p: argparse.ArgumentParser) -> None:
    """``--device``."""
    p.add_argument(
        "--device",
        choices=DEVICES,
        default="auto",
        help="default: auto, the fastest there is",
    )


def add_fields(
    p: argparse.ArgumentParser, options: type, only: Sequence[str] = ()
) -> None:
    """One option for each field that has a help text; what is not given is left out."""
    for field in fields(options):
        if "help" not in field.metadata or (only and field.name not in only):
            continue
        name = "--" + field.name.replace("_", "-")
        more: dict[str, Any] = {"help": field.metadata["help"]}
        kind = str(field.type).removesuffix(" | None")
        if field.name == "device":
            more["choices"] = DEVICES
        elif field.default is True:
            name, more["dest"] = field.metadata["off"], field.name
            more["action"] = "store_false"
        elif field.default is False:
            more["action"] = "store_true"
        else:
            more["metavar"] = field.metadata["metavar"]
            more["type"] = POSITIVE if "above" in field.metadata else _TYPES[kind]
        p.add_argument(name, default=argparse.SUPPRESS, **more)


def _number(kind: type, what: str, fits: Callable[[Any], bool]) -> Callable[[str], Any]:
    """An option's number of this type, for which ``fits`` is true."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not fits(value):
            raise argparse.ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse


INVERT = ("--invert", "invert the grey values, for images with bright arteries")
POSITIVE = _number(float, "a positive number", lambda x: 0 < x < float("inf"))
PROBABILITY = _number(float, "between 0 and 1", lambda x: 0 < x <= 1)
_COUNT = _number(int, "a whole number from 0", lambda x: x >= 0)
_AMOUNT = _number(float, "a number from 0", lambda x: x >= 0)
_TYPES = {"str": str, "int": _COUNT, "float": _AMOUNT}
