"""Sentences for the artist, with the values in them."""

import copy
import pickle

import pytest
from sun_pack.sun_core.errors import SunError, Text


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda text: pickle.loads(pickle.dumps(text))])
def test_a_text_with_braces_in_its_values_can_be_copied_and_pickled(copied):
    """As between the processes of a training; a file may be named {so}."""
    text = Text("{name} is {what}.", name="{a} {0} {", what=Text("an empty file"))
    again = copied(text)
    assert (again, again.english, again.values) == (text, text.english, text.values)
    assert again.values["what"].english == "an empty file"
    error = copied(SunError("{name} is damaged.", name="{a}"))
    assert str(error) == "{a} is damaged." and error.sentence.values == {"name": "{a}"}
