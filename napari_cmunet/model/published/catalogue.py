"""The checkpoints that the authors of CM-UNet have published.

They are not part of this program; ``models fetch`` downloads one when asked to.
"""

from __future__ import annotations

from dataclasses import dataclass

from napari_cmunet.errors import ModelError

REPOSITORY = "CamilleChallier/Contrastive-Masked-UNet"
COMMIT = "cdbc615a51ca36ac3712e30bc0d9306a13033c70"
FOLDER = "Finetuning/models_checkpoints"
LICENCE = "none stated by the authors"
MEGABYTES = 124.28
"""About, for each of them."""
_LFS_HOST = "https://media.githubusercontent.com/media"

_STARTS = {
    "cmunet": "CM-UNet pre-training",
    "mae": "MAE pre-training",
    "moco": "MoCo pre-training",
    "model_genesis": "Models Genesis pre-training",
    "spark": "SparK pre-training",
    "unet": "random weights",
}
_LABELS = {"ratio_50-30": 530, "ratio_79-1": 18}


@dataclass(frozen=True)
class PublishedFile:
    """One published checkpoint: a network fine-tuned by its authors.

    Parameters
    ----------
    folder, file : str
        Where it lies in their repository.
    sha256 : str
    """

    folder: str
    file: str
    sha256: str

    @property
    def method(self) -> str:
        """How its start was pre-trained: ``cmunet``, ``mae``, ..."""
        return self.file.split("_lr")[0]

    @property
    def name(self) -> str:
        """What ``models fetch`` calls it, and the model made of it."""
        method = self.method.replace("_", "-")
        return f"published-{method}-{self.folder.removeprefix('ratio_')}"

    @property
    def url(self) -> str:
        """Where the authors' file is, at the commit that is known."""
        return f"{_LFS_HOST}/{REPOSITORY}/{COMMIT}/{FOLDER}/{self.folder}/{self.file}"

    @property
    def labels(self) -> int:
        """Labelled frames it was fine-tuned on, about, as the paper says."""
        return _LABELS[self.folder]

    @property
    def description(self) -> str:
        """One sentence."""
        return (
            f"Published by the authors of CM-UNet: fine-tuned on about {self.labels} "
            f"labels from {_STARTS[self.method]}."
        )


PUBLISHED = tuple(
    PublishedFile(folder, file, sha256)
    for folder, file, sha256 in (
        (
            "ratio_50-30",
            "cmunet_lr0.001_e128_b32.pth",
            "d80516c8d165062391656797b4a06b7b7ec391f764b34c99ea3758639310854c",
        ),
        (
            "ratio_50-30",
            "mae_lr0.001_e128_b32.pth",
            "315264a7e80958b87d8e2aa1d7454b1285970957a59ba541e2a7a6bb4dce5ab3",
        ),
        (
            "ratio_50-30",
            "moco_lr0.001_e128_b32.pth",
            "b05123996fd0fc3bc9953745391192d2fe7db1ad7c355e3d7e59bcf9786c6f61",
        ),
        (
            "ratio_50-30",
            "model_genesis_lr0.0001_e128_b32.pth",
            "5e13505c30a1b1159588e25efe40e5fa1519dc1dadb2f14e2bb5b94ea7af9fd2",
        ),
        (
            "ratio_50-30",
            "spark_lr0.001_e128_b32.pth",
            "e568c20dc0a786006ca4c736a02b8130929d6be4005011d7fb07bcb7e09cac2b",
        ),
        (
            "ratio_50-30",
            "unet_lr0.001_e128_b32.pth",
            "6f543b0ed6ee851c233a52f154755c56b024e737ef9c0379b5ec2d9b27e1cb83",
        ),
        (
            "ratio_79-1",
            "cmunet_lr0.001.pth",
            "c8466d30101a80d7a41b2d4f8913302c94f4b506c46a456d13b708c2db927d98",
        ),
        (
            "ratio_79-1",
            "mae_lr0.001.pth",
            "df3d5d6812c3ae8ac61e11254f5feead1d1f543fbb2e4f111cde73707f052f56",
        ),
        (
            "ratio_79-1",
            "moco_lr0.001.pth",
            "0c66342fb50978be77b5a655f11bccec14aee47b0b75d82d29063ddd31c3205b",
        ),
        (
            "ratio_79-1",
            "model_genesis_lr0.001.pth",
            "f812da53ff76ac09bcece0facde80828bddb150c6b147466cc052dd42537b1d0",
        ),
        (
            "ratio_79-1",
            "spark_lr0.001.pth",
            "64c76a9efbea938f72ec699b55fbd0aa8f0f2a8dd75b6be0d25e19692bfa31a5",
        ),
        (
            "ratio_79-1",
            "unet_lr0.001.pth",
            "33f5dd757df2be70b43b911e6c26ab81e024f6825df278fe9c0b714fa3881842",
        ),
    )
)


def find_published(name: str) -> PublishedFile:
    """A published file by its name.

    Raises
    ------
    ModelError
        If there is none, naming those that there are.
    """
    for published in PUBLISHED:
        if published.name == name:
            return published
    names = ", ".join(published.name for published in PUBLISHED)
    raise ModelError(f"There is no published model named '{name}'. There are: {names}.")


def published_by_hash(sha256: str) -> PublishedFile | None:
    """The published file that has this hash, if one does."""
    return next((p for p in PUBLISHED if p.sha256 == sha256), None)
