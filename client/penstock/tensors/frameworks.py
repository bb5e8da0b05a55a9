"""Bytes as arrays of a framework: no copy where the memory allows it.

Responsible for: what the format's types are called there, and making arrays over memory.
Not responsible for: where the memory comes from. Imports a framework when it is first used.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from penstock.errors import InvalidRequest
from penstock.tensors.header import DTYPE_BITS

Framework: TypeAlias = Literal["pt", "np"]
Make: TypeAlias = Callable[[memoryview, str, Sequence[int]], Any]
"""Called with memory, a type of the format, and a shape."""

_NUMPY: Mapping[str, type] = {
    "BOOL": np.bool_,
    "U8": np.uint8,
    "I8": np.int8,
    "I16": np.int16,
    "U16": np.uint16,
    "F16": np.float16,
    "I32": np.int32,
    "U32": np.uint32,
    "F32": np.float32,
    "C64": np.complex64,
    "F64": np.float64,
    "I64": np.int64,
    "U64": np.uint64,
}
TORCH: Mapping[str, str] = {
    "F4": "float4_e2m1fn_x2",
    "BOOL": "bool",
    "U8": "uint8",
    "I8": "int8",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "I16": "int16",
    "U16": "uint16",
    "F16": "float16",
    "BF16": "bfloat16",
    "I32": "int32",
    "U32": "uint32",
    "F32": "float32",
    "C64": "complex64",
    "F64": "float64",
    "I64": "int64",
    "U64": "uint64",
}
"""What torch calls the format's types; one that packs two elements halves the last dimension."""


def maker(framework: Framework) -> Make:
    """Return what makes arrays of a framework.

    Raises:
        InvalidRequest: There is no such framework, or it is not installed.
    """
    if framework not in get_args(Framework):
        raise InvalidRequest(
            f"framework={framework!r}: want one of {', '.join(get_args(Framework))}"
        )
    return numpy_array if framework == "np" else torch_tensor


def numpy_array(memory: memoryview, dtype: str, shape: Sequence[int]) -> Any:
    """Return an array over ``memory``.

    Raises:
        InvalidRequest: numpy has no such type.
    """
    if dtype not in _NUMPY:
        raise InvalidRequest(f'numpy has no {dtype}: take framework="pt"')
    return np.frombuffer(memory, _NUMPY[dtype]).reshape(shape)


def torch_tensor(memory: memoryview, dtype: str, shape: Sequence[int]) -> Any:
    """Return a tensor over ``memory``, which is writable; a copy where its address does not fit.

    Raises:
        InvalidRequest: torch is not installed, or too old to have this type.
    """
    torch = require_torch()
    found, wanted = torch_dtype(dtype), torch_shape(dtype, shape)
    if not len(memory):
        return torch.empty(wanted, dtype=found)
    octets = torch.frombuffer(memory, dtype=torch.uint8)
    return as_tensor(octets, dtype, shape)


def as_tensor(octets: Any, dtype: str, shape: Sequence[int]) -> Any:
    """Return bytes that torch has, on any device, as a tensor of another type."""
    if octets.data_ptr() % max(1, DTYPE_BITS[dtype] // 8):
        octets = octets.clone()
    return octets.view(torch_dtype(dtype)).view(torch_shape(dtype, shape))


def torch_dtype(dtype: str) -> Any:
    """Return torch's type.

    Raises:
        InvalidRequest: It has none.
    """
    torch = require_torch()
    found = getattr(torch, TORCH.get(dtype, ""), None)
    if found is None:
        raise InvalidRequest(f"torch {torch.__version__} has no {dtype}")
    return found


def torch_shape(dtype: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Return the shape in torch's elements: of the packed type, of pairs."""
    if dtype != "F4":
        return tuple(shape)
    if not shape or shape[-1] % 2:
        raise InvalidRequest(f"F4 {list(shape)} has no whole pairs in its last dimension")
    return (*shape[:-1], shape[-1] // 2)


@functools.cache
def require_torch() -> Any:
    """Return the module.

    Raises:
        InvalidRequest: It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise InvalidRequest(
            "this needs torch, which is not installed: pip install 'penstock[torch]'"
        ) from error
    return torch
