"""The compute device: its choice, number format, and memory."""

from __future__ import annotations

import ctypes
import platform
from typing import TYPE_CHECKING

from napari_cmunet.errors import DeviceError
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    import torch


DEVICES = ("auto", "cuda", "mps", "cpu")

# What torch and the libraries below it say when memory runs out.
_NO_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "_status_alloc_failed",
    "could not create a memory object",
    "could not create a primitive",  # oneDNN, for want of memory for its code
)


def import_torch():
    """Import torch, turning a broken installation into a readable error.

    Raises
    ------
    DeviceError
        If torch is missing or its libraries do not load.
    """
    try:
        import torch
    except ImportError as exc:
        raise DeviceError(
            f"PyTorch cannot be imported ({exc}). Install it with: pip install torch"
        ) from exc
    except OSError as exc:
        # Seen on Windows when a GUI library has loaded another C++ runtime first.
        raise DeviceError(
            f"PyTorch's libraries cannot be loaded ({exc}). On Windows, install the "
            "current Microsoft Visual C++ redistributable and start again."
        ) from exc
    return torch


def available_devices() -> list[str]:
    """Names of the devices of this machine, the fastest first, ``cpu`` last."""
    torch = import_torch()
    found = []
    if torch.cuda.is_available():
        found.append("cuda")
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def choose_device(name: str = "auto") -> torch.device:
    """Pick a device: the one asked for, or CUDA, then Apple MPS, then the CPU.

    Parameters
    ----------
    name : str
        One of :data:`DEVICES`.

    Raises
    ------
    DeviceError
        If the device asked for is not there.
    """
    torch = import_torch()
    if name not in DEVICES:
        raise DeviceError(
            f"Unknown device '{name}'. Choose one of: {', '.join(DEVICES)}."
        )
    found = available_devices()
    if name == "auto":
        return torch.device(found[0])
    if name not in found:
        raise DeviceError(
            f"This machine has no '{name}' device that PyTorch can use. "
            f"It has: {', '.join(found)}."
        )
    return torch.device(name)


def choose_device_or_fallback(name: str) -> tuple[torch.device, str]:
    """Choose a device, or the best available one and a message if it is missing.

    For a window whose choice was made when the machine still had that device.
    """
    try:
        return choose_device(name), ""
    except DeviceError as error:
        if name not in DEVICES:
            raise
        device = choose_device("auto")
        return device, f"{error} Using {describe_device(device)}."


def describe_device(device: torch.device) -> str:
    """Short name for people, such as ``CPU (2 threads)`` or the GPU's own name."""
    torch = import_torch()
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({counted(torch.get_num_threads(), 'thread')})"


def fast_dtype(device: torch.device) -> torch.dtype:
    """The precision in which the device runs convolutions fastest, safely.

    bfloat16 on a GPU since Ampere or a CPU with instructions for it, else float32
    (half precision on older CUDA cards, and on MPS).
    """
    torch = import_torch()
    if device.type == "cuda":
        # Older GPUs only emulate bfloat16, slowly.
        real = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if real else torch.float16
    if device.type == "mps":
        return torch.float16
    has = torch.cpu.get_capabilities()
    real = has.get("amx_bf16") or has.get("avx512_bf16")
    return torch.bfloat16 if real else torch.float32


def inference_dtype(device: torch.device) -> torch.dtype:
    """The precision for prediction: 8-bit integers on a CPU with VNNI.

    Elsewhere :func:`fast_dtype`. Without VNNI sums of 8-bit products overflow.
    """
    torch = import_torch()
    if (
        device.type == "cpu"
        and torch.cpu.get_capabilities().get("avx512_vnni")
        and torch.backends.mkldnn.is_available()
        and hasattr(torch.ops.onednn, "qconv2d_pointwise")
    ):
        return torch.int8
    return fast_dtype(device)


def training_dtype(device: torch.device) -> torch.dtype:
    """The precision in which networks are trained: bfloat16 where fast, else float32.

    Never half precision: small gradients would vanish in it.
    """
    torch = import_torch()
    fast = fast_dtype(device)
    return torch.bfloat16 if fast == torch.bfloat16 else torch.float32


def training_autocast(device: torch.device) -> torch.autocast:
    """A context in which forward passes run in :func:`training_dtype`."""
    torch = import_torch()
    return torch.autocast(
        device.type, torch.bfloat16, enabled=training_dtype(device) == torch.bfloat16
    )


def training_layout(device: torch.device) -> torch.memory_format:
    """The memory format in which convolutions are trained fastest.

    Channels last, but not on a CPU without AVX-512, whose weight gradients take up to
    three times as long in it.
    """
    torch = import_torch()
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return torch.contiguous_format
    return torch.channels_last


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether memory ran out, on any device and system."""
    torch = import_torch()
    if isinstance(exc, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(exc).lower()
    return isinstance(exc, RuntimeError) and any(sign in text for sign in _NO_MEMORY)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_LARGEST_INT = 2**31 - 1


def tune_malloc() -> bool:
    """Tune glibc malloc so that freed activations are reused.

    By default glibc maps each activation of each step from the system and returns it,
    page by page, which takes most of a training step on a CPU. For processes that
    train and then end; a window should return its memory.

    Returns
    -------
    bool
        Whether it took effect: glibc only, others manage without.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return bool(
        libc.mallopt(_M_MMAP_THRESHOLD, 2**30)
        and libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT)
    )
