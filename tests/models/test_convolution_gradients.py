"""Each record's gradient of a convolution, by every way, against autograd on one record at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from framp_private.models import convolution_gradients
from framp_private.models.convolution_gradients import formed
from framp_private.randomness import Streams

CASES = {
    "rows, few channels": ("_by_rows", nn.Conv2d(3, 5, 5), 12),
    "rows, padded": ("_by_rows", nn.Conv2d(2, 4, 3, padding=1), 7),
    "rows, kernel and padding not square": ("_by_rows", nn.Conv2d(2, 4, (3, 2), padding=(2, 1)), 7),
    "rows, kernel of one": ("_by_rows", nn.Conv2d(4, 3, 1), 6),
    "groups": ("_by_groups", nn.Conv2d(8, 6, 3, padding=1), 12),
    "groups, stride": ("_by_groups", nn.Conv2d(8, 6, 3, 2, 1), 24),
    "windows, stride": ("_by_windows", nn.Conv2d(3, 5, 3, 2, 1), 9),
    "windows, unequal strides": ("_by_windows", nn.Conv2d(3, 5, 3, (1, 2)), 8),
}


def _one_by_one(x: Tensor, back: Tensor, layer: nn.Conv2d) -> Tensor:
    found = [torch.autograd.grad((layer(x[i : i + 1]) * back[i : i + 1]).sum(), layer.weight)[0] for i in range(len(x))]
    return torch.stack(found)


@pytest.mark.parametrize("n", [1, 17])
@pytest.mark.parametrize("kind", list(CASES))
def test_norms_and_sums_equal_autograd_s(kind: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    way, layer, side = CASES[kind]
    used = []
    real = getattr(convolution_gradients, way)
    monkeypatch.setattr(convolution_gradients, way, lambda *given: used.append(way) or real(*given))
    generator = Streams(5).child(kind).torch()
    x = torch.randn(n, layer.in_channels, side, side, generator=generator)
    back = torch.randn(layer(x).shape, generator=generator)
    mask = (torch.rand(layer.weight.shape, generator=generator) < 0.5).float()
    scale = torch.rand(n, generator=generator)
    expected = _one_by_one(x, back, layer)
    with torch.no_grad():
        for kept in (None, mask):
            found = formed(x, back, layer)
            cut = expected if kept is None else expected * kept
            torch.testing.assert_close(found.squared(kept), cut.flatten(1).square().sum(1), rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(
                found.weighted(scale), torch.tensordot(scale, cut, 1).double(), rtol=1e-4, atol=1e-4
            )
    assert used == [way, way]
