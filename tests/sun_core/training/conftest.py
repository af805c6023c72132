import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parent))  # tiny_run, which the tests' own processes import as well


@pytest.fixture
def sdxl(reference):
    """A tiny SDXL with random weights."""
    from tiny_sdxl import tiny_sdxl

    return tiny_sdxl(reference.unet_config)
