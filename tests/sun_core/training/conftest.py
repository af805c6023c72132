import pytest


@pytest.fixture
def sdxl(reference):
    """A tiny SDXL with random weights."""
    from tiny_sdxl import tiny_sdxl

    return tiny_sdxl(reference.unet_config)
