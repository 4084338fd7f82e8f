"""Training keeps the memory that it frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
from napari_cmunet.model.device import tune_malloc

if sys.argv[1] == "keep":
    assert tune_malloc()
faults = []
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(5_000_000)  # 40 MB, written and freed
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(faults[-1])
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="only glibc gives memory back so eagerly"
)
@pytest.mark.slow
def test_freed_memory_is_not_fetched_from_the_system_again():
    faults = {
        mode: int(
            subprocess.run(
                [sys.executable, "-c", PROGRAM, mode],
                capture_output=True,
                text=True,
                check=True,
                # Otherwise the kernel's large pages hide the difference.
                env={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0", "PATH": ""},
            ).stdout
        )
        for mode in ("keep", "give back")
    }

    assert faults["keep"] < 20 < faults["give back"]
