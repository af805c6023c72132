import pytest
import torch
from sun_pack.sun_core.attention import combine, offset, rescale, row_norm
from sun_pack.sun_core.layers import cross_attention_layers
from torch.nn.functional import scaled_dot_product_attention

HEADS = 4


def attend(q, k, v):
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.fixture(params=[1, 11, 31])
def layer(request, reference, reference_model, adapter):
    """The frozen layer, its SunLayer, and the name of its reference tensors."""
    layers = {layer.number: layer for layer in cross_attention_layers(reference_model.model.diffusion_model)}
    return layers[request.param].attention, adapter[str(request.param)], f"layer{request.param}"


def sun_layer(attention, sun, hidden, positive, negative):
    q = attention.to_q(hidden)
    text = attend(q, attention.to_k(positive), attention.to_v(positive))
    neg = attend(q, *sun.negative_kv(negative))
    pos = attend(q, *sun.positive_kv(positive))
    out = combine(
        text,
        offset(neg, text, sun.to_k_neg_alpha, sun.to_k_neg_beta),
        offset(pos, text, sun.to_k_extra_pos_alpha, sun.to_k_extra_pos_beta),
    )
    return q, text, neg, pos, out


def test_layer_and_its_branches_equal_official_code(layer, reference, difference):
    attention, sun, name = layer
    io = reference.io
    q, text, neg, pos, out = sun_layer(attention, sun, io[f"in.{name}.hidden"], io["in.pos0"], io["in.neg0"])
    assert difference(q, io[f"out.{name}.q"]) < reference.tolerances["branch"]
    assert difference(text, io[f"out.{name}.branch_text"]) < reference.tolerances["branch"]
    assert difference(neg, io[f"out.{name}.branch_neg"]) < reference.tolerances["branch"]
    assert difference(pos, io[f"out.{name}.branch_pos"]) < reference.tolerances["branch"]
    assert difference(out, io[f"out.{name}.pre_out"]) < reference.tolerances["pre_out"]
    assert difference(attention.to_out(out), io[f"out.{name}.attn2"]) < reference.tolerances["pre_out"]


def test_layer_with_154_positive_tokens_equals_official_code(layer, reference, difference):
    attention, sun, name = layer
    io = reference.io
    out = sun_layer(attention, sun, io[f"in.{name}.hidden"], io["in.pos_long"], io["in.neg0"])[-1]
    assert difference(attention.to_out(out), io[f"out.{name}.attn2_long"]) < reference.tolerances["pre_out"]


def test_norm_over_the_whole_batch_would_equal_the_official_batch(layer, reference, difference):
    """What ours leaves out on purpose: with the batch as one row the official batch of two comes out."""
    attention, sun, name = layer
    io = reference.io
    positive, negative = (torch.cat([io[f"in.{which}0"], io[f"in.{which}1"]]) for which in ("pos", "neg"))
    _, text, neg, pos, ours = sun_layer(attention, sun, io[f"in.{name}.hidden_b2"], positive, negative)

    def as_one_row(branch):
        return rescale(branch.flatten(0, 1)[None], text.flatten(0, 1)[None])[0].unflatten(0, text.shape[:2])

    official = combine(
        text,
        sun.to_k_neg_alpha * as_one_row(neg) + sun.to_k_neg_beta,
        sun.to_k_extra_pos_alpha * as_one_row(pos) + sun.to_k_extra_pos_beta,
    )
    assert difference(official, io[f"out.{name}.pre_out_b2"]) < reference.tolerances["pre_out"]
    assert difference(ours, io[f"out.{name}.pre_out_b2"]) > 1e-3


def test_rescaled_branch_has_the_norm_of_the_text_in_every_row():
    text, branch = torch.randn(3, 16, 8), torch.randn(3, 16, 8) * torch.tensor([0.1, 1.0, 50.0]).view(3, 1, 1)
    assert torch.allclose(row_norm(rescale(branch, text)), row_norm(text))


def test_norm_of_a_large_fp16_tensor_is_finite():
    x = torch.full((1, 4096, 320), 60.0, dtype=torch.float16)
    assert row_norm(x).item() == pytest.approx(60.0 * (4096 * 320) ** 0.5)


def test_branch_of_zeros_adds_nothing_but_beta():
    alpha, beta = torch.ones(8), torch.full((8,), 0.5)
    for dtype in (torch.float32, torch.float16):
        zeros, text = torch.zeros(2, 4, 8, dtype=dtype), torch.randn(2, 4, 8, dtype=dtype)
        assert torch.equal(offset(zeros, text, alpha, beta), torch.full_like(text, 0.5))


def test_strength_scales_each_term():
    text, neg, pos = torch.randn(3, 1, 4, 8)
    assert torch.allclose(combine(text, neg, pos, 0.5, 2.0), text - 0.5 * neg + 2.0 * pos)
    assert torch.allclose(combine(text, neg, None, 0.5), text - 0.5 * neg)


def test_gradients_reach_the_branch_and_its_scales():
    text, branch = torch.randn(2, 4, 8), torch.randn(2, 4, 8, requires_grad=True)
    alpha, beta = torch.ones(8, requires_grad=True), torch.zeros(8, requires_grad=True)
    offset(branch, text, alpha, beta).square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (branch, alpha, beta))


def test_gradient_of_a_branch_of_zeros_is_finite():
    branch = torch.zeros(1, 4, 8, requires_grad=True)
    offset(branch, torch.randn(1, 4, 8), torch.ones(8), torch.zeros(8)).sum().backward()
    assert torch.isfinite(branch.grad).all()
