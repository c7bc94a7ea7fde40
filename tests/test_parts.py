"""Parts of a projection, and their gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nmt import short_attention
from nmt.models.parts import parts


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("shape", [(4, 5), (1, 1), (7,)])
def test_as_chunk(count: int, shape: tuple[int, ...]) -> None:
    x = torch.randn(*shape, count * 6, dtype=torch.float64, requires_grad=True)
    assert all(map(torch.equal, parts(x, count), x.chunk(count, dim=-1)))
    with torch.no_grad():
        assert all(map(torch.equal, parts(x, count), x.chunk(count, dim=-1)))
    assert torch.autograd.gradcheck(lambda x: parts(x * 2, count), x)
    assert torch.autograd.gradcheck(lambda x: parts(x * 2, count)[-1], x)  # of one part alone


class _Gives(torch.autograd.Function):
    """Passes its inputs on, and gives them these gradients."""

    @staticmethod
    def forward(ctx: object, grads: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.grads = grads  # type: ignore[attr-defined]
        return torch.stack([x.sum() for x in inputs]).sum()

    @staticmethod
    def backward(ctx: object, grad: Tensor) -> tuple[Tensor | None, ...]:
        return None, *ctx.grads  # type: ignore[attr-defined]


def grad_for(grads: list[Tensor]) -> Tensor:
    x = torch.randn(*grads[0].shape[:-1], sum(grad.size(-1) for grad in grads), requires_grad=True)
    seen: list[Tensor] = []
    x.register_hook(seen.append)
    _Gives.apply(grads, *parts(x, len(grads))).backward()
    return seen[0]


def test_gradients_beside_each_other_are_not_copied() -> None:
    whole = torch.randn(3, 4, 18)
    found = grad_for(list(whole.chunk(3, dim=-1)))
    assert found.data_ptr() == whole.data_ptr()
    assert torch.equal(found, whole)


@pytest.mark.parametrize("case", ["apart", "turned", "overlapping", "part of a wider one", "expanded"])
def test_others_are_put_together(case: str) -> None:
    whole = torch.randn(3, 4, 24)
    first, second, third, _ = whole.chunk(4, dim=-1)
    grads = {
        "apart": [first, second.clone(), third],
        "turned": [second, first, third],
        "overlapping": [first, first, first],
        "part of a wider one": [first, second, third],
        "expanded": [torch.ones(()).expand(3, 4, 6)] * 3,
    }[case]
    assert torch.equal(grad_for(grads), torch.cat(grads, dim=-1))


@pytest.mark.skipif(short_attention._library() is None, reason="no AVX-512 here, or C is not compiled")
@pytest.mark.parametrize("own", [True, False], ids=["self", "cross"])
def test_attention_leaves_them_beside_each_other(own: bool) -> None:
    """Bit-equal to gradients of copies, which are not parts of anything."""
    heads, width = 2, 16

    def split(x: Tensor) -> Tensor:
        return x.view(3, 5, heads, width).transpose(1, 2)

    projected = torch.randn(3, 5, (3 if own else 2) * heads * width, requires_grad=True)
    query = torch.randn(3, 5, heads * width, requires_grad=True)
    seen: list[Tensor] = []
    projected.register_hook(seen.append)
    found = parts(projected, 3 if own else 2)
    query_key_value = [split(x) for x in (found if own else (query, *found))]
    weights = torch.randn(3, heads, 5, width)
    (short_attention.attend(*query_key_value, None, causal=own) * weights).sum().backward()
    copies = [x.detach().clone().requires_grad_() for x in query_key_value]
    (short_attention.attend(*copies, None, causal=own) * weights).sum().backward()
    expected = [x.grad.transpose(1, 2).flatten(2) for x in copies if x.grad is not None]
    assert torch.equal(seen[0], torch.cat(expected if own else expected[1:], dim=-1))
    assert seen[0].untyped_storage().nbytes() == seen[0].numel() * 4
    if not own:
        assert query.grad is not None
        assert torch.equal(query.grad, expected[0])


@pytest.mark.skipif(short_attention._library() is None, reason="no AVX-512 here, or C is not compiled")
def test_fewer_queries_than_keys_of_one_projection() -> None:
    """They begin where a whole part would, and are not one."""
    query, key, value = (
        part.view(4, 64, 2, 16).transpose(1, 2)
        for part in torch.randn(4, 64, 96, requires_grad=True).chunk(3, dim=-1)
    )
    some = query[:, :, :3]
    found = torch.autograd.grad(
        short_attention.attend(some, key, value, None, causal=False).sum(), (some, key, value)
    )
    assert [grad.shape for grad in found] == [some.shape, key.shape, value.shape]
    copies = [x.detach().clone().requires_grad_() for x in (some, key, value)]
    expected = torch.autograd.grad(short_attention.attend(*copies, None, causal=False).sum(), copies)
    assert all(map(torch.equal, found, expected))
