"""The settings of preprocessing, as a model's card holds them. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Preprocessing:
    """How frames are made ready for a model; written into the model's card.

    Parameters
    ----------
    grid : int
        Pixels of the frame's longer side as the network sees it.
    radius : float
        Standard deviation of the background blur, as a share of the longer
        side. The paper: 60 px on a frame of 475 px.
    amount : float
        Strength of the unsharp mask, ``x + amount * (x - blur(x))``. The paper: 3.
    border : float
        Share of the grey range, above its minimum, under which pixels that touch
        the frame's edge count as collimated away. They take no part in the
        statistics and become 0, the mean.
    """

    grid: int = 384
    radius: float = 60 / 475
    amount: float = 3.0
    border: float = 0.04

    def to_json(self) -> dict[str, Any]:
        """Plain values for the card."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Preprocessing:
        """Read from a card.

        Raises
        ------
        ValueError
            If a value is unknown or out of range.
        """
        if unknown := set(values) - set(cls.__dataclass_fields__):
            raise ValueError(f"unknown preprocessing {min(unknown)!r:.40}")
        made = cls(**values)
        for name, value in values.items():
            # A bool is an int in Python, and a whole number may stand for a float.
            allowed = (int,) if name == "grid" else (int, float)
            if type(value) not in allowed:
                raise ValueError(f"preprocessing: {name} is {value!r:.40}")
        if not (
            16 <= made.grid <= 4096
            and 0 < made.radius <= 1
            and 0 <= made.amount <= 100
            and 0 <= made.border < 1
        ):
            raise ValueError(f"preprocessing out of range: {values!r:.120}")
        return made
