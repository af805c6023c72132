import pytest
import torch
from sun_pack.sun_core.adapter import EXTRA_POSITIVE, NEGATIVE
from sun_pack.sun_core.attention import add_offsets, norm_ratios, row_norm
from sun_pack.sun_core.layers import cross_attention_layers
from torch.nn.functional import scaled_dot_product_attention

HEADS = 4


def attend(q, k, v):
    q, k, v = (t.unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k, v))
    return scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


@pytest.fixture(params=[1, 11, 31])
def layer(request, reference_unet, adapter):
    """The frozen layer, its SunLayer, and the name of its reference tensors."""
    layers = {layer.number: layer for layer in cross_attention_layers(reference_unet)}
    return layers[request.param].attention, adapter[str(request.param)], f"layer{request.param}"


def sun_layer(attention, sun, hidden, positive, negative):
    q = attention.to_q(hidden)
    text = attend(q, attention.to_k(positive), attention.to_v(positive))
    neg = attend(q, *sun.keys_values(NEGATIVE, negative))
    pos = attend(q, *sun.keys_values(EXTRA_POSITIVE, positive))
    return q, text, neg, pos, add_offsets(torch.stack([text, neg, pos]), *scales_and_shift(sun))


def scales_and_shift(sun, negative_strength=1.0, positive_strength=1.0):
    (an, bn), (ap, bp) = (
        [sun.per_channel(branch, which).float() for which in ("alpha", "beta")] for branch in (NEGATIVE, EXTRA_POSITIVE)
    )
    scales = torch.stack([-negative_strength * an, positive_strength * ap])[:, None, None]
    return scales, (positive_strength * bp - negative_strength * bn)


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

    as_one_row = torch.stack([text, neg, pos]).flatten(1, 2).unsqueeze(1)
    official = add_offsets(as_one_row, *scales_and_shift(sun))[0].unflatten(0, text.shape[:2])
    assert difference(official, io[f"out.{name}.pre_out_b2"]) < reference.tolerances["pre_out"]
    assert difference(ours, io[f"out.{name}.pre_out_b2"]) > 1e-3


def formula(text, neg, pos, sun):
    """The paper's formula, line by line."""

    def rescaled(branch):
        return branch * (text.flatten(1).norm(dim=1) / branch.flatten(1).norm(dim=1))[:, None, None]

    neg = sun.per_channel(NEGATIVE, "alpha") * rescaled(neg) + sun.per_channel(NEGATIVE, "beta")
    pos = sun.per_channel(EXTRA_POSITIVE, "alpha") * rescaled(pos) + sun.per_channel(EXTRA_POSITIVE, "beta")
    return text - neg + pos


def test_offsets_equal_the_papers_formula(layer, reference, difference):
    attention, sun, name = layer
    io = reference.io
    positive, negative = (torch.cat([io[f"in.{which}0"], io[f"in.{which}1"]]) for which in ("pos", "neg"))
    _, text, neg, pos, out = sun_layer(attention, sun, io[f"in.{name}.hidden_b2"], positive, negative)
    assert difference(out, formula(text, neg, pos, sun)) < 1e-6


def test_offsets_in_half_precision_equal_those_in_fp32(layer, reference, difference):
    attention, sun, name = layer
    io = reference.io
    _, text, neg, pos, out = sun_layer(attention, sun, io[f"in.{name}.hidden"], io["in.pos0"], io["in.neg0"])
    scales, shift = scales_and_shift(sun)
    half = add_offsets(torch.stack([text, neg, pos]).half(), scales, shift.half())
    assert half.dtype == torch.float16 and difference(half, out) < 1e-3


def test_rescaled_branch_has_the_norm_of_the_text_in_every_row():
    text, branch = torch.randn(3, 16, 8), torch.randn(3, 16, 8) * torch.tensor([0.1, 1.0, 50.0]).view(3, 1, 1)
    (ratio,) = norm_ratios(torch.stack([text, branch]))
    assert torch.allclose(row_norm(branch * ratio), row_norm(text))


def test_norm_of_a_large_fp16_tensor_is_finite():
    x = torch.full((1, 4096, 320), 60.0, dtype=torch.float16)
    assert row_norm(x).item() == pytest.approx(60.0 * (4096 * 320) ** 0.5)


def test_branch_of_zeros_adds_nothing_but_the_shift():
    scales, shift = torch.ones(1, 1, 1, 8), torch.full((8,), 0.5)
    for dtype in (torch.float32, torch.float16):
        text = torch.randn(2, 4, 8).to(dtype)
        attended = torch.stack([text, torch.zeros_like(text)])
        assert torch.equal(add_offsets(attended, scales, shift.to(dtype)), text + 0.5)


def test_each_branch_has_a_scale_of_its_own():
    text, neg, pos = attended = torch.randn(3, 1, 4, 8)
    scales = torch.tensor([-0.5, 2.0]).view(2, 1, 1, 1).expand(2, 1, 1, 8)
    ratio_neg, ratio_pos = norm_ratios(attended)
    expected = text - 0.5 * ratio_neg * neg + 2.0 * ratio_pos * pos
    assert torch.allclose(add_offsets(attended, scales, torch.zeros(8)), expected, atol=1e-6)


def test_weights_say_where_a_branch_counts():
    attended, scales, shift = torch.randn(2, 1, 4, 8), torch.ones(1, 1, 1, 8), torch.zeros(8)
    here = torch.tensor([1.0, 1.0, 0.0, 0.0]).view(1, 1, 4, 1)
    everywhere, masked = add_offsets(attended, scales, shift), add_offsets(attended, scales, shift, here)
    assert torch.equal(masked[:, :2], everywhere[:, :2]) and torch.equal(masked[:, 2:], attended[0, :, 2:])


def test_gradients_reach_the_branch_and_its_scales():
    attended = torch.randn(2, 2, 4, 8, requires_grad=True)
    scales, shift = torch.ones(1, 1, 1, 8, requires_grad=True), torch.zeros(8, requires_grad=True)
    add_offsets(attended, scales, shift).square().sum().backward()
    assert all(t.grad is not None and t.grad.abs().sum() > 0 for t in (attended, scales, shift))


def test_gradient_of_a_branch_of_zeros_is_finite():
    attended = torch.stack([torch.randn(1, 4, 8), torch.zeros(1, 4, 8)]).requires_grad_()
    add_offsets(attended, torch.ones(1, 1, 1, 8), torch.zeros(8)).sum().backward()
    assert torch.isfinite(attended.grad).all()


def test_offsets_of_branches_one_by_one_have_the_bits_of_those_in_one_tensor():
    attended = torch.randn(3, 2, 300, 320)
    scales, shift = torch.randn(2, 1, 1, 320), torch.randn(320)
    assert torch.equal(add_offsets(list(attended), scales, shift), add_offsets(attended, scales, shift))
