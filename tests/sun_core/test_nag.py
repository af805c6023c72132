"""Normalized attention guidance: the published formula, and what it must never do."""

import pytest
import torch
from sun_pack.sun_core.nag import AttentionGuidance, NagSettings, _norms
from sun_pack.sun_core.nag import normalized_attention_guidance as guide_pair
from torch.utils._python_dispatch import TorchDispatchMode
from workshop.speed.operations import Operations

SETTINGS = [NagSettings(), NagSettings(5.0, 2.5, 0.25), NagSettings(2.0, 1.0, 1.0), NagSettings(11.0, 10.0, 0.5)]


def tokens(seed=0):
    return torch.randn(2, 2, 16, 8, generator=torch.Generator().manual_seed(seed)).unbind()


def normalized_attention_guidance(text, negative, settings):
    """Guide a pair and leave it as it is."""
    return guide_pair(torch.stack([text, negative]), settings)


def formula(text, neg, s, tau, alpha):
    """Algorithm 1 of arXiv 2505.21179, line by line."""
    ext = s * text - (s - 1) * neg
    r = ext.abs().sum(-1, keepdim=True) / text.abs().sum(-1, keepdim=True)
    held = ext * torch.minimum(r, torch.full_like(r, tau)) / r
    return alpha * held + (1 - alpha) * text


@pytest.mark.parametrize("settings", SETTINGS)
def test_guidance_equals_the_published_formula(settings):
    text, negative = tokens()
    negative = 3 * negative  # some tokens beyond tau, some within
    expected = formula(text, negative, settings.scale, settings.tau, settings.alpha)
    assert (normalized_attention_guidance(text, negative, settings) - expected).abs().max() < 1e-5


def test_text_stays_for_those_who_read_it_after_the_guidance():
    attended = torch.stack(tokens())
    text = attended[0].clone()
    guide_pair(attended, NagSettings())
    assert torch.equal(attended[0], text)


def test_guidance_on_a_gpu_takes_at_most_7_operations():
    """Not counting views; there, their number costs more than their arithmetic. Another device stands for it."""
    attended = torch.empty(2, 1, 16, 8, device="meta")
    with Operations() as operations:
        guide_pair(attended, NagSettings())
    assert operations.counts.total() <= 7, operations.counts


def test_norms_are_the_same_on_every_device():
    """The CPU adds up in a way of its own."""
    attended = torch.stack(tokens())
    assert torch.allclose(_norms(attended), torch.linalg.vector_norm(attended, ord=1, dim=-1, keepdim=True))


def test_guidance_of_a_token_computed_by_hand():
    """ext = 3 * (1, 1) - 2 * (0, 3) = (3, -3), r = 6/2 = 3; tau 2 holds it to (2, -2); half of each is (1.5, -0.5)."""
    out = normalized_attention_guidance(torch.tensor([[[1.0, 1.0]]]), torch.tensor([[[0.0, 3.0]]]), NagSettings(3, 2))
    assert out.tolist() == [[[1.5, -0.5]]]


def test_a_token_reaches_tau_times_its_norm_and_no_more():
    text, negative = tokens()
    out = normalized_attention_guidance(text, negative, NagSettings(scale=50.0, tau=2.0, alpha=1.0))
    torch.testing.assert_close(out.abs().sum(-1), 2.0 * text.abs().sum(-1))


@pytest.mark.parametrize("settings", [NagSettings(scale=1.0), NagSettings(alpha=0.0)])
def test_scale_1_and_alpha_0_are_off_and_give_the_text(settings):
    text, negative = tokens()
    assert settings.is_off and not NagSettings().is_off
    torch.testing.assert_close(normalized_attention_guidance(text, negative, settings), text)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_tokens_of_zeros_stay_finite(dtype):
    zeros, some = torch.zeros(1, 4, 8, dtype=dtype), torch.ones(1, 4, 8, dtype=dtype)
    for text, negative in ((zeros, zeros), (zeros, some), (some, zeros), (some, some * 1.5)):  # the last: ext is 0
        out = normalized_attention_guidance(text, negative, NagSettings())
        assert out.dtype == dtype and out.isfinite().all()
    assert not normalized_attention_guidance(zeros, some, NagSettings()).any(), "a token without text stays without"


def test_half_precision_equals_fp32(difference):
    text, negative = (t * 20 for t in tokens())
    half = normalized_attention_guidance(text.half(), negative.half(), NagSettings())
    assert half.dtype == torch.float16
    assert difference(half, normalized_attention_guidance(text, negative, NagSettings())) < 1e-3


def test_norm_of_many_large_fp16_channels_is_finite():
    text, negative = (torch.full((1, 4, 1280), value, dtype=torch.float16) for value in (600.0, 300.0))
    assert normalized_attention_guidance(text, negative, NagSettings()).isfinite().all()


def test_several_negatives_are_averaged_before_one_guidance():
    text, first = tokens()
    second = tokens(1)[0]
    shares = torch.tensor([0.25, 0.75]).view(2, 1, 1, 1)
    found = AttentionGuidance(NagSettings(), shares)(torch.stack([text, first, second]), None)
    average = 0.25 * first + 0.75 * second
    torch.testing.assert_close(found, normalized_attention_guidance(text, average, NagSettings()))


def test_weights_say_where_a_negative_counts():
    text, first = tokens()
    second = tokens(1)[0]
    left = (torch.arange(16) < 8).float().view(1, 1, 16, 1)
    guidance = AttentionGuidance(NagSettings(), torch.full((2, 1, 1, 1), 0.5))
    found = guidance(torch.stack([text, first, second]), torch.stack([left, 1 - left]).squeeze(1))
    of_first, of_second = (normalized_attention_guidance(text, n, NagSettings()) for n in (first, second))
    assert torch.equal(found[:, :8], of_first[:, :8]) and torch.equal(found[:, 8:], of_second[:, 8:])


def test_samplers_that_follow_gradients_can():
    """AttentionGuidance overwrites what the attention gave, unless the attention needs that for its gradient."""
    x = torch.stack(tokens()).requires_grad_()
    attended = x.exp()  # its gradient reads it
    AttentionGuidance(NagSettings(), torch.ones(1, 1, 1, 1))(attended, None).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("negatives", [1, 2, 3])
@pytest.mark.parametrize("in_places", [False, True])
def test_tensors_one_by_one_give_the_bits_of_one_tensor(dtype, negatives, in_places):
    """As large layers on a CPU attend."""
    attended = torch.randn(1 + negatives, 2, 1024, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    shares = torch.full((negatives, 1, 1, 1), 1 / negatives, dtype=dtype)
    weights = torch.rand(negatives, 2, 1024, 1, generator=torch.Generator().manual_seed(1)).to(dtype)
    guidance, weights = AttentionGuidance(NagSettings(), shares), weights if in_places else None
    one_by_one = guidance([branch.clone() for branch in attended], weights)
    assert torch.equal(one_by_one, guidance(attended, weights))


class LargestTensor(TorchDispatchMode):
    """Notes the number of elements of the largest tensor that an operation gives."""

    def __init__(self):
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):  # unbind gives views
            self.elements = max(self.elements, result.numel())
        return result


@pytest.mark.parametrize("negatives", [1, 3])
def test_tensors_one_by_one_are_not_copied_into_one(negatives):
    attended = [torch.ones(1, 1024, 64) for _ in range(1 + negatives)]
    with LargestTensor() as largest:
        AttentionGuidance(NagSettings(), torch.full((negatives, 1, 1, 1), 1 / negatives))(attended, None)
    assert largest.elements == attended[0].numel()


@pytest.mark.parametrize("negatives", [1, 2])
def test_samplers_that_follow_gradients_can_with_tensors_one_by_one(negatives):
    x = torch.stack([*tokens(), *tokens(1)])[: 1 + negatives].requires_grad_()
    attended = x.exp()  # its gradient reads it
    shares = torch.full((negatives, 1, 1, 1), 1 / negatives)
    (expected,) = torch.autograd.grad(
        AttentionGuidance(NagSettings(), shares)(attended, None).sum(), x, retain_graph=True
    )
    AttentionGuidance(NagSettings(), shares)([branch.exp() for branch in x], None).sum().backward()
    torch.testing.assert_close(x.grad, expected)
