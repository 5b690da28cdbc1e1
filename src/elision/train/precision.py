"""Which number format a computation runs in."""

import torch

from elision.errors import InputError


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Return the dtype for `precision`: "auto" means bfloat16 where the hardware multiplies it faster than float32.

    That is so on GPUs with bfloat16 units, and on CPUs with tile units (AMX); on others bfloat16 products are slower.
    """
    if precision != "auto":
        return torch.bfloat16 if precision == "bfloat16" else torch.float32
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    if device.type == "cpu":
        has_tiles = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
        return torch.bfloat16 if has_tiles() else torch.float32
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Return the context in which a forward pass computes in `dtype`, with weights kept as they are."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype == torch.bfloat16)


def choose_device(name: str) -> torch.device:
    """Return the device for "auto" (a GPU when there is one) or for a name such as "cpu" or "cuda:1".

    Raises: InputError when there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise InputError(
            f"--device is {name!r}, which cannot be used ({reason}): give auto, cpu, cuda or cuda:N"
        ) from None
    return device
