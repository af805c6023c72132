"""How many operations SUN adds to a forward, counted where they are dispatched: on a GPU their number is what costs."""

import comfy.ldm.modules.attention
import pytest
from sun_pack.sun_core.apply import apply_negative, apply_sun
from sun_pack.sun_core.layers import cross_attention_layers
from sun_pack.sun_core.settings import NegativeSettings, SunSettings
from workshop.speed.operations import Operations

WAITS = ("_local_scalar_dense", "equal", "nonzero", "item", "is_nonzero")
"""Operations for whose result the host waits until the device has done all its work."""


@pytest.fixture(autouse=True)
def torch_attention(monkeypatch):
    """ComfyUI's attention as it is on CUDA, and with --use-pytorch-cross-attention on a CPU."""
    attention = comfy.ldm.modules.attention
    monkeypatch.setattr(attention, "optimized_attention", attention.attention_pytorch)


@pytest.fixture
def forwards(sample, monkeypatch):
    """The operations of each evaluation of a run: `forwards(model, **options of sample)`."""

    def forwards(model, **options):
        counted = []
        kind = type(model.model)  # what is put on the model itself is taken for another pack's
        original = kind.apply_model

        def counting(*args, **kwargs):
            with Operations() as operations:
                result = original(*args, **kwargs)
            counted.append(operations.counts)
            return result

        with monkeypatch.context() as patch:
            patch.setattr(kind, "apply_model", counting)
            sample(model, **options)
        return counted

    return forwards


def added_per_layer(with_sun, plain, layers):
    return (with_sun.total() - plain.total()) / layers


@pytest.fixture
def layer_count(model):
    return len(cross_attention_layers(model.model.diffusion_model))


@pytest.mark.parametrize("batch", [1, 4])
def test_layer_adds_at_most_ten_operations(model, adapter, forwards, layer_count, batch):
    plain = forwards(model, batch=batch)[1]
    sun = forwards(apply_sun(model, adapter, SunSettings()), batch=batch)[1]
    assert added_per_layer(sun, plain, layer_count) <= 10, sun - plain


def test_layer_with_a_long_positive_adds_at_most_eleven_operations(model, adapter, forwards, layer_count, conditioning):
    long = conditioning("pos_long")
    plain = forwards(model, positive=long)[1]
    sun = forwards(apply_sun(model, adapter, SunSettings()), positive=long)[1]
    assert added_per_layer(sun, plain, layer_count) <= 11, sun - plain


@pytest.mark.parametrize("batch", [1, 2])
def test_no_forward_after_the_first_waits_for_the_device(model, adapter, forwards, batch):
    first, *others = forwards(apply_sun(model, adapter, SunSettings()), batch=batch)
    assert not any(counts[name] for counts in others for name in WAITS)
    assert len(others) == 3 and (batch == 1 or first["equal"]), "the counter sees what it is to see"


def test_keys_values_and_scales_are_made_in_the_first_forward_alone(model, adapter, forwards):
    sun = apply_sun(model, adapter, SunSettings())
    forwards(sun)  # shows that nothing is compiled
    first, *others = forwards(sun)
    assert all(counts == others[0] for counts in others)
    assert first["mm"] > others[0]["mm"], "the first makes keys and values"


def test_layer_makes_nothing_of_the_text_after_the_first_forward(model, adapter, forwards, layer_count):
    sun = apply_sun(model, adapter, SunSettings())
    plain, (*_, last) = forwards(model)[1], forwards(sun)
    assert plain["mm"] - last["mm"] == 2 * layer_count


@pytest.mark.parametrize("batch", [1, 4])
def test_layer_without_an_adapter_adds_no_more_and_never_waits(model, forwards, layer_count, batch):
    plain = forwards(model, batch=batch)[1]
    negative = apply_negative(model, NegativeSettings())
    forwards(negative, batch=batch)  # shows that nothing is compiled
    first, *others = forwards(negative, batch=batch)
    assert added_per_layer(others[0], plain, layer_count) <= 10, others[0] - plain
    assert first["mm"] > others[0]["mm"] and all(counts == others[0] for counts in others)
    assert not any(counts[name] for counts in (first, *others) for name in WAITS)
