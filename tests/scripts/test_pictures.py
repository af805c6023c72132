"""Pictures that the repository's own code draws, without a model."""

import pytest
from workshop.pictures.registry_pictures import REGISTRY_PICTURES, file_of


@pytest.mark.parametrize("name", REGISTRY_PICTURES)
def test_registrys_picture_is_what_the_script_writes(name: str) -> None:
    """`python3 scripts/pictures.py icon banner` writes both."""
    assert file_of(name).read_text(encoding="utf-8") == REGISTRY_PICTURES[name]()
