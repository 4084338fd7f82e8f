"""What a PyTorch checkpoint's pickle may ask for, and our stand-ins for it.

A tensor is noted as where its numbers lie and how they are arranged; they are read
later, and only those of tensors that are wanted. Every arrangement is checked against
the storage that it views.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from napari_cmunet.model.published.inert_pickle import (
    Calls,
    Global,
    Machine,
    Record,
    RefusedError,
)

ITEM_BYTES = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int64": 8,
    "int32": 4,
    "int16": 2,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
    "complex64": 8,
    "complex128": 16,
}
_STORAGES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "ComplexFloatStorage": "complex64",
    "ComplexDoubleStorage": "complex128",
    "UntypedStorage": "uint8",
}
_MAX_DIMENSIONS = 8
_MAX_NUMBERS = 2**40


@dataclass(frozen=True)
class Storage:
    """A row of numbers in the file.

    Parameters
    ----------
    key : str
        Its name in the file.
    dtype : str
    length : int
        How many numbers.
    """

    key: str
    dtype: str
    length: int

    @property
    def nbytes(self) -> int:
        """Its size in the file."""
        return self.length * ITEM_BYTES[self.dtype]


@dataclass(frozen=True)
class TensorRecord:
    """A tensor that was not made: a view of a storage, known to lie within it.

    Parameters
    ----------
    storage : Storage
    dtype : str
        The storage's, unless that is untyped.
    offset : int
        In numbers of ``dtype``, like the strides.
    shape, stride : tuple of int
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def _persistent(identity: Any) -> Any:
    """A storage, or a class that was saved with its source (which is not looked at)."""
    if not isinstance(identity, tuple) or len(identity) < 2:
        raise RefusedError("it is damaged (an unknown kind of reference)")
    kind, what = identity[0], identity[1]
    if kind == "module" and isinstance(what, Global):
        return what
    if kind != "storage" or len(identity) not in (5, 6):
        raise RefusedError("it is damaged (an unknown kind of reference)")
    _, _, key, _, length = identity[:5]
    if len(identity) == 6 and identity[5] is not None:
        raise RefusedError("it was saved by a very old PyTorch; save it again")
    known = isinstance(what, Global) and what.module in (
        "torch",
        "torch.cuda",
        "torch.storage",
    )
    if not known or what.name not in _STORAGES:
        raise RefusedError(f"it holds numbers of an unknown kind ({_named(what)})")
    if not isinstance(key, str):
        raise RefusedError("it is damaged (a storage without a name)")
    return Storage(key, _STORAGES[what.name], _count(length))


def _named(value: Any) -> str:
    # Never str() of what is no name: printing nested containers can take for ever.
    return str(value) if isinstance(value, Global) else "something"


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _MAX_NUMBERS:
        raise RefusedError("it is damaged (a tensor of impossible size)")
    return value


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, dtype: str | None = None
) -> TensorRecord:
    if not isinstance(storage, Storage):
        raise RefusedError("it is damaged (a tensor without numbers)")
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        raise RefusedError("it is damaged (a tensor without a shape)")
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSIONS:
        raise RefusedError("it is damaged (a tensor of impossible shape)")
    offset = _count(offset)
    shape = tuple(_count(n) for n in shape)
    stride = tuple(_count(n) for n in stride)
    dtype = dtype or storage.dtype
    if storage.nbytes % ITEM_BYTES[dtype]:
        raise RefusedError("it is damaged (a tensor of broken numbers)")
    if 0 not in shape:
        last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True))
        if (last + 1) * ITEM_BYTES[dtype] > storage.nbytes:
            raise RefusedError("it is damaged (a tensor reaches beyond its numbers)")
    return TensorRecord(storage, dtype, offset, shape, stride)


def _rebuild_tensor(machine: Machine, args: tuple) -> TensorRecord:
    # storage, offset, size, stride[, requires_grad, backward hooks[, metadata]]
    if not 4 <= len(args) <= 7 or (len(args) == 7 and args[6]):
        raise RefusedError("it holds a tensor of an unknown kind")
    return _tensor(*args[:4])


def _rebuild_tensor_v3(machine: Machine, args: tuple) -> TensorRecord:
    # As above, with the dtype seventh: the storage is untyped.
    if not 7 <= len(args) <= 8 or (len(args) == 8 and args[7]):
        raise RefusedError("it holds a tensor of an unknown kind")
    dtype = args[6]
    if (
        not isinstance(dtype, Global)
        or dtype.module != "torch"
        or dtype.name not in ITEM_BYTES
    ):
        raise RefusedError(f"it holds numbers of an unknown kind ({_named(dtype)})")
    return _tensor(*args[:4], dtype=dtype.name)


def _rebuild_parameter(machine: Machine, args: tuple) -> TensorRecord:
    if not args or not isinstance(args[0], TensorRecord):
        raise RefusedError("it is damaged (a parameter that is no tensor)")
    return args[0]


def _rebuild_from_type(machine: Machine, args: tuple) -> TensorRecord:
    function, _, inner, _ = args
    made_by = _named(function)
    if made_by not in _REBUILDS or not isinstance(inner, tuple):
        raise RefusedError(f"it asks to run {made_by}")
    return _REBUILDS[made_by](machine, inner)


def _attribute(machine: Machine, args: tuple) -> Global:
    """A method's name. It stays a name; to call it is refused like any other."""
    owner, name = args
    if not isinstance(owner, Global) or not isinstance(name, str):
        raise RefusedError("it asks to run builtins.getattr on something strange")
    made = f"{owner.name}.{name}"
    machine.charge(len(made))
    return Global(owner.module, made)


def _encode(machine: Machine, args: tuple) -> bytes:
    text, codec = args
    if not isinstance(text, str) or codec not in ("latin1", "latin-1"):
        raise RefusedError("it asks to run _codecs.encode on something strange")
    machine.charge(len(text))
    return text.encode("latin-1")


def _bytes(machine: Machine, args: tuple) -> bytes:
    if args and not isinstance(args[0], bytes):
        return _encode(machine, args)
    machine.charge(len(args[0]) if args else 0)
    return bytes(args[0]) if args else b""


def _dict(machine: Machine, args: tuple) -> dict:
    return machine.make_dict(args[0] if args else [])


def _default_dict(machine: Machine, args: tuple) -> dict:
    return {}  # its items follow


def _set(machine: Machine, args: tuple) -> set:
    return machine.make_set(args[0] if args else [])


def _size(machine: Machine, args: tuple) -> tuple:
    (sizes,) = args
    if not isinstance(sizes, list | tuple):
        raise RefusedError("it is damaged (a size that is none)")
    machine.charge(len(sizes))
    return tuple(sizes)


def _reconstructor(machine: Machine, args: tuple) -> Record:
    """How protocols 0 and 1 ask for an object."""
    what, base, state = args
    if state is not None and not isinstance(base, Global):
        raise RefusedError(f"it asks to make {_named(what)} from arguments")
    return machine.new(what, ())


def _newobj(machine: Machine, args: tuple) -> Record:
    return machine.new(args[0], args[1:])


def _noted(name: str) -> Any:
    """Something plain that no network needs; noted, not made."""
    module, _, own = name.rpartition(".")
    of = Global(module, own)
    return lambda machine, args: Record(of, args)


_NOTED = (
    "numpy.dtype",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.numeric._frombuffer",
    "numpy._core.numeric._frombuffer",
    "torch.device",
    "builtins.complex",
    "builtins.slice",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
    "datetime.date",
    "datetime.datetime",
    "datetime.timedelta",
)

_REBUILDS = {
    "torch._utils._rebuild_tensor": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_tensor_v3": _rebuild_tensor_v3,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch._utils._rebuild_parameter_with_state": _rebuild_parameter,
}

_FUNCTIONS = {
    **_REBUILDS,
    "torch._tensor._rebuild_from_type_v2": _rebuild_from_type,
    "torch.Size": _size,
    "collections.OrderedDict": _dict,
    "collections.Counter": _dict,
    "collections.defaultdict": _default_dict,
    "builtins.dict": _dict,
    "builtins.set": _set,
    "builtins.frozenset": _set,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.getattr": _attribute,
    "_codecs.encode": _encode,
    "copyreg._reconstructor": _reconstructor,
    "copyreg.__newobj__": _newobj,
    **{name: _noted(name) for name in _NOTED},
}


def torch_calls() -> tuple[Calls, dict[str, Storage]]:
    """What PyTorch's pickles may ask for, and the storages that one mentions."""
    storages: dict[str, Storage] = {}

    def persistent(identity: Any) -> Any:
        value = _persistent(identity)
        if (
            isinstance(value, Storage)
            and storages.setdefault(value.key, value) != value
        ):
            raise RefusedError("it is damaged (one storage of two kinds)")
        return value

    return Calls(_FUNCTIONS, persistent), storages
