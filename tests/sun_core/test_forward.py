"""How the layers of a forward attend to the text and the branches."""

import comfy.ldm.modules.attention
import pytest
import torch
from sun_pack.sun_core import forward
from sun_pack.sun_core.forward import LayerBranches, Offsets

CHANNELS, TEXT_TOKENS, HEADS = 320, 77, 8
"""Those of Stable Diffusion 1.5's first layers."""


@pytest.fixture
def attend():
    """ComfyUI's attention, which notes how many rows each call has."""

    def attend(q, k, v):
        attend.rows.append(len(q))
        return comfy.ldm.modules.attention.optimized_attention(q, k, v, HEADS)

    attend.rows = []
    return attend


@pytest.fixture
def branches():
    def random():
        return [torch.randn(1, TEXT_TOKENS, CHANNELS)]

    combine = Offsets(torch.randn(2, 1, 1, CHANNELS), torch.randn(CHANNELS))
    return LayerBranches([random(), random()], [random(), random()], combine, chunk_rows=1)


@pytest.mark.parametrize(("tokens", "rows"), [(64, [3]), (1024, [1, 1, 1])])
def test_only_small_layers_attend_in_one_call_on_a_cpu(branches, attend, tokens, rows):
    q, k, v = (torch.randn(1, length, CHANNELS) for length in (tokens, TEXT_TOKENS, TEXT_TOKENS))
    branches.attend_with_text(q, k, v, attend)
    assert attend.rows == rows


def test_one_call_gives_the_bits_of_one_call_per_branch(branches, attend, monkeypatch):
    q, k, v = (torch.randn(1, length, CHANNELS) for length in (1024, TEXT_TOKENS, TEXT_TOKENS))
    one_by_one = branches.attend_with_text(q, k, v, attend)
    monkeypatch.setattr(forward, "LARGE", q.numel())  # what was above it is not any more
    assert torch.equal(branches.attend_with_text(q, k, v, attend), torch.stack(one_by_one))
    assert attend.rows == [1, 1, 1, 3]
