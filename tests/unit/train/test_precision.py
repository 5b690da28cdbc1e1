"""Number formats and devices."""

import pytest
import torch

from elision.errors import InputError
from elision.train.precision import autocast, choose_device, compute_dtype

CPU = torch.device("cpu")


def test_a_named_precision_is_obeyed() -> None:
    assert compute_dtype("float32", CPU) == torch.float32
    assert compute_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("has_tiles", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_on_a_cpu_auto_means_bfloat16_only_where_it_has_tile_units(
    monkeypatch: pytest.MonkeyPatch, has_tiles: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: has_tiles, raising=False)
    assert compute_dtype("auto", CPU) == dtype


def test_autocast_computes_in_bfloat16_and_leaves_the_weights_alone() -> None:
    layer = torch.nn.Linear(2, 2)
    with autocast(CPU, torch.bfloat16):
        assert layer(torch.ones(1, 2)).dtype == torch.bfloat16
    with autocast(CPU, torch.float32):
        assert layer(torch.ones(1, 2)).dtype == torch.float32
    assert layer.weight.dtype == torch.float32


def test_devices_are_chosen_by_name() -> None:
    assert choose_device("cpu") == CPU
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "", "meta"])
def test_a_device_that_is_not_there_is_named(name: str) -> None:
    with pytest.raises(
        InputError, match=f"--device is '{name}', which cannot be used .*give auto, cpu, cuda or cuda:N"
    ):
        choose_device(name)
