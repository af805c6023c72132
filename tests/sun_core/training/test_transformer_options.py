"""SUN in a direct call of the U-Net, as training makes it."""

import torch
from sun_pack.sun_core.adapter import SunAdapter
from sun_pack.sun_core.training.transformer_options import training_transformer_options


def test_training_forward_equals_official_code(reference_unet, adapter, reference, difference):
    """A direct call of the U-Net, one negative per row."""
    io, t = reference.io, 749
    contexts = [torch.cat([io[f"in.{which}0"], io[f"in.{which}1"]]) for which in ("pos", "neg")]
    options = training_transformer_options(adapter, contexts[1])
    x = torch.cat([io["in.latent0"], io["in.latent1"]])
    with torch.no_grad():
        eps = reference_unet(x, torch.full((2,), float(t)), context=contexts[0], transformer_options=options)
    for row in range(2):
        assert difference(eps[row : row + 1], io[f"out.sun_eps{row}.t{t}"]) < reference.tolerances["eps_rel"]


def test_training_forward_gives_every_parameter_a_gradient(reference_unet, reference):
    io = reference.io
    adapter = SunAdapter.for_unet(reference_unet)
    options = training_transformer_options(adapter, io["in.neg0"])
    for _ in range(2):  # the same options serve step after step
        adapter.zero_grad()
        t = torch.tensor([499.0])
        eps = reference_unet(io["in.latent0"], t, context=io["in.pos0"], transformer_options=dict(options))
        eps.square().mean().backward()
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in adapter.parameters())
