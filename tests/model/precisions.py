"""Precisions that not every processor has."""

import pytest
import torch

BFLOAT16 = pytest.param(
    torch.bfloat16,
    marks=pytest.mark.skipif(
        not torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        reason="torch packs bfloat16 for AVX-512 alone",
    ),
)
