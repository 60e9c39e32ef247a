"""The penalty of an encoder's pass is EWC's, and costs nothing where there is nothing to hold."""

from __future__ import annotations

import pytest
import torch

from perennial.trainers._tune import _Anchor


@pytest.mark.req("J43")
def test_the_pull_is_the_gradient_of_the_penalty_that_it_measures() -> None:
    draw = torch.Generator().manual_seed(1)
    shapes = ((4, 3), (5,), (2, 6))
    champion = [torch.randn(shape, generator=draw) for shape in shapes]
    fisher = [torch.rand(shape, generator=draw) for shape in shapes]
    now = [torch.nn.Parameter(value + 0.1 * torch.randn(value.shape, generator=draw)) for value in champion]
    penalty = 7.0
    pairs = list(zip(now, champion, fisher, strict=True))
    expected = 0.5 * penalty * torch.stack([(f * (p - c) ** 2).sum() for p, c, f in pairs]).sum()
    expected.backward()  # type: ignore[no-untyped-call]
    wanted = [parameter.grad for parameter in now]
    for parameter in now:
        parameter.grad = torch.ones_like(parameter)  # what the loss left
    anchor = _Anchor(parameters=now, champion=champion, fisher=fisher, penalty=penalty)
    assert anchor.pull(apply=True, measure=True) == pytest.approx(float(expected.detach()), rel=1e-5)
    for parameter, gradient in zip(now, wanted, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.allclose(parameter.grad, 1.0 + gradient, rtol=1e-5)
    before = [parameter.grad.clone() for parameter in now if parameter.grad is not None]
    anchor.pull(apply=False, measure=True)
    assert all(torch.equal(one, other.grad) for one, other in zip(before, now, strict=True) if other.grad is not None)
    assert not _Anchor(parameters=now, champion=champion, fisher=[], penalty=penalty).holds
    assert not _Anchor(parameters=now, champion=champion, fisher=fisher, penalty=0.0).holds
