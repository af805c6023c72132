"""How the layers of a forward attend to the text and the branches."""

import comfy.ldm.modules.attention
import comfy.samplers
import pytest
import torch
from sun_pack.sun_core import forward
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.apply import apply_sun
from sun_pack.sun_core.forward import LayerBranches, Offsets
from sun_pack.sun_core.settings import SunSettings

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


@pytest.mark.parametrize("is_one_text", [False, True])
def test_rows_of_one_text_attend_as_one_row_on_a_gpu(branches, attend, monkeypatch, is_one_text):
    monkeypatch.setattr(forward, "_may_join_rows", lambda q: True)  # no GPU is needed for the arithmetic
    in_batch = LayerBranches(branches.keys, branches.values, branches.combine, chunk_rows=3)
    q, k, v = (torch.randn(rows, length, CHANNELS) for rows, length in ((3, 64), (1, TEXT_TOKENS), (1, TEXT_TOKENS)))
    text = (k.expand(3, -1, -1), v.expand(3, -1, -1))
    attended = in_batch.attend_with_text(q, *text, attend, is_one_text)
    assert attend.rows == ([3] if is_one_text else [9])
    one_by_one = [branches.attend_with_text(row, k, v, attend)[:, 0] for row in q.split(1)]
    torch.testing.assert_close(attended, torch.stack(one_by_one, dim=1))


@pytest.mark.parametrize("extra_positive", [True, False])
def test_rows_with_texts_of_their_own_attend_one_by_one(
    model, sample, reference, difference, monkeypatch, extra_positive
):
    """One conditioning of several rows, for a batch, as packs for prompt schedules make it."""
    sun = apply_sun(model, SunAdapter.for_unet(model.model.diffusion_model, extra_positive), SunSettings())
    rows = torch.cat([reference.io["in.pos0"], reference.io["in.pos1"]])
    alone = [sample(sun, positive=[[row[None], {}]], batch=2)[i] for i, row in enumerate(rows)]
    for may_join in (False, True):
        monkeypatch.setattr(forward, "_may_join_rows", lambda q, may_join=may_join: may_join)
        for i, image in enumerate(sample(sun, positive=[[rows, {}]], batch=2)):
            assert difference(image, alone[i]) < 1e-5


@pytest.mark.parametrize("where", ["class of a block", "block", "patch of an evaluation"])
def test_rows_that_another_pack_gives_words_of_their_own_keep_them(
    model, adapter, sample, difference, monkeypatch, where
):
    """Rows that have one text attend as one on a GPU; these had it only before."""
    loudness = torch.tensor([1.0, 2.0]).view(2, 1, 1)
    sun = apply_sun(model, adapter, SunSettings())
    unchanged = sample(sun, batch=2)
    if where == "class of a block":
        block = comfy.ldm.modules.attention.BasicTransformerBlock
        own = block.forward
        monkeypatch.setattr(
            block,
            "forward",
            lambda self, x, context, transformer_options: own(self, x, context * loudness, transformer_options),
        )
    elif where == "block":
        block = model.model.diffusion_model.middle_block[1].transformer_blocks[0]
        own = block.forward
        louder = lambda x, context, transformer_options: own(x, context * loudness, transformer_options)  # noqa: E731
        monkeypatch.setitem(vars(block), "forward", louder)
    else:

        def patched(args):
            patches = {"attn2_patch": [lambda n, context, value, options: (n, context * loudness, value * loudness)]}
            options = dict(args["model_options"])
            options["transformer_options"] = options["transformer_options"] | {"patches": patches}
            model, x, sigma = (args[name] for name in ("model", "input", "sigma"))
            return comfy.samplers.calc_cond_batch(model, [args["cond"]], x, sigma, options)[0]

        sun.set_model_sampler_post_cfg_function(patched)
    one_by_one = sample(sun, batch=2)
    assert difference(one_by_one[1], unchanged[1]) > 0.01
    monkeypatch.setattr(forward, "_may_join_rows", lambda q: True)
    assert difference(sample(sun, batch=2), one_by_one) < 1e-5
