"""Compare how fast two versions of this program open cines of each transfer syntax.

    python -m benchmarks.opening_speed FOLDER_OF_OTHER_VERSION

Synthetic cines of 8 and of 200 frames (512 x 512, 8 bits) are opened in turn by this
version and by the other one, each in a process of its own, several times over. Of each
file the least time counts; the table shows both and their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.io.dicom_making import SYNTAXES, write_dicom

_OPEN = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from napari_cmunet.io.images import read_angiogram
best = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    for _ in range(8):
        began = time.perf_counter()
        read_angiogram(path, hashed=False)
        took = time.perf_counter() - began
        best[path.stem] = min(took, best.get(path.stem, took))
print(json.dumps(best))
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("other", type=Path, help="repository of the other version")
    parser.add_argument("--rounds", type=int, default=4)
    options = parser.parse_args()
    here = Path(__file__).parents[1]
    best: dict[Path, dict[str, float]] = {here: {}, options.other: {}}
    with tempfile.TemporaryDirectory() as folder:
        cine = make_cine(PhantomConfig(frames=8, size=512, seed=3)).frames
        for name in SYNTAXES:
            for count in (8, 200):
                frames = np.tile(cine, (count // 8, 1, 1))
                path = Path(folder, f"{name}, {count} frames.dcm")
                write_dicom(path, frames, name, bits=8)
        for _ in range(options.rounds):
            for tree, least in best.items():
                for name, seconds in _times(tree, folder).items():
                    least[name] = min(seconds, least.get(name, seconds))
    print("| cine | other | this | ratio |\n|---|---|---|---|")
    ratios = []
    for name, seconds in best[here].items():
        other = best[options.other][name]
        ratios.append(seconds / other)
        print(
            f"| {name} | {1000 * other:.1f} ms | {1000 * seconds:.1f} ms | "
            f"{ratios[-1]:.2f} |"
        )
    print(f"| geometric mean | | | {np.exp(np.mean(np.log(ratios))):.3f} |")


def _times(tree: Path, folder: str) -> dict[str, float]:
    """Least seconds of each file, opened by the version in a folder."""
    done = subprocess.run(
        [sys.executable, "-c", _OPEN, folder],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    main()
