"""Choosing a device, on machines of every kind."""

from __future__ import annotations

import builtins

import pytest
import torch

from napari_cmunet.errors import DeviceError
from napari_cmunet.model import device


@pytest.fixture
def machine(monkeypatch):
    """Pretend to be a machine with these devices."""

    def pretend(*, cuda: bool = False, mps: bool = False) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return pretend


@pytest.mark.parametrize(
    ("cuda", "mps", "first"),
    [
        (True, True, "cuda"),
        (True, False, "cuda"),
        (False, True, "mps"),
        (False, False, "cpu"),
    ],
)
def test_auto_takes_the_fastest(machine, cuda, mps, first):
    machine(cuda=cuda, mps=mps)
    assert device.choose_device().type == first
    assert device.choose_device("cpu").type == "cpu"
    assert device.available_devices()[0] == first
    assert device.available_devices()[-1] == "cpu"


def test_a_device_that_is_not_there_is_named(machine):
    machine()
    with pytest.raises(DeviceError, match=r"no 'cuda' device.*It has: cpu"):
        device.choose_device("cuda")


def test_an_unknown_device_is_told_the_known_ones(machine):
    machine()
    with pytest.raises(DeviceError, match="auto, cuda, mps, cpu"):
        device.choose_device("tpu")


def test_description_is_for_people(monkeypatch):
    assert device.describe_device(torch.device("cpu")).startswith("CPU (")
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Some GPU")
    assert device.describe_device(torch.device("cuda")) == "Some GPU"
    assert device.describe_device(torch.device("mps")) == "Apple GPU"


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True, "amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True, "amx_bf16": False}, torch.bfloat16),
        ({"avx2": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_precision_of_processors(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert device.fast_dtype(torch.device("cpu")) == expected


def test_8_bit_integers_need_vnni(monkeypatch):
    for has, expected in ((True, torch.int8), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda has=has: {"avx512_vnni": has}
        )
        assert device.inference_dtype(torch.device("cpu")) == expected
    assert device.inference_dtype(torch.device("mps")) == torch.float16


def test_training_layout(monkeypatch):
    # Newer than the oldest torch that the package allows.
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    for name, expected in (
        ("AVX512", torch.channels_last),
        ("AVX2", torch.contiguous_format),
    ):
        monkeypatch.setattr(
            torch.backends.cpu, "get_cpu_capability", lambda name=name: name
        )
        assert device.training_layout(torch.device("cpu")) == expected
        assert device.training_layout(torch.device("cuda")) == torch.channels_last


@pytest.mark.parametrize(
    ("generation", "fast", "training"),
    [(9, torch.bfloat16, torch.bfloat16), (7, torch.float16, torch.float32)],
)
def test_precision_of_gpus(monkeypatch, generation, fast, training):
    """Before Ampere (8), bfloat16 exists but is emulated and slow."""
    monkeypatch.setattr(
        torch.cuda,
        "is_bf16_supported",
        lambda including_emulation=True: including_emulation or generation >= 8,
    )
    assert device.fast_dtype(torch.device("cuda")) == fast
    assert device.training_dtype(torch.device("cuda")) == training


def test_training_never_uses_half_precision():
    assert device.fast_dtype(torch.device("mps")) == torch.float16
    assert device.training_dtype(torch.device("mps")) == torch.float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.filterwarnings("error")
def test_training_context_gives_that_precision(monkeypatch, dtype):
    monkeypatch.setattr(device, "fast_dtype", lambda _: dtype)
    conv = torch.nn.Conv2d(1, 1, 3)
    with device.training_autocast(torch.device("cpu")):
        assert conv(torch.zeros(1, 1, 8, 8)).dtype == dtype


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] err == 0. DefaultCPUAllocator: can't "
            "allocate memory: you tried to allocate 9999 bytes."
        ),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: not enough "
            "memory: you tried to allocate 9999 bytes."
        ),
        RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError(
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"
        ),
        RuntimeError("could not create a memory object"),
        MemoryError(),
    ],
)
def test_memory_errors_of_every_kind(error):
    assert device.is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"),
        ValueError("memory"),
    ],
)
def test_other_errors_are_not_taken_for_it(error):
    assert not device.is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (ImportError("No module named 'torch'"), "pip install torch"),
        (OSError("[WinError 1114] c10.dll"), "Visual C"),
    ],
)
def test_a_broken_torch_is_a_readable_error(monkeypatch, error, advice):
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name == "torch":
            raise error
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)
    with pytest.raises(DeviceError, match=advice):
        device.choose_device()


def test_nothing_here_is_kept_between_calls(monkeypatch, machine):
    machine(cuda=True)
    assert device.choose_device().type == "cuda"
    machine()
    assert device.choose_device().type == "cpu"
