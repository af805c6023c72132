"""The settings of the page that the server reads."""

import json

import folder_paths
import pytest
from sun_pack.nodes.settings import may_capture, page_language


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    (tmp_path / "default").mkdir()
    return tmp_path / "default" / "comfy.settings.json"


def test_forwards_may_be_captured_until_the_artist_turns_it_off(settings_file):
    assert may_capture()
    settings_file.write_text(json.dumps({"SUN.ReplayForwards": False}))
    assert not may_capture()
    settings_file.write_text(json.dumps({"SUN.ReplayForwards": True}))
    assert may_capture()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_damaged_settings_change_nothing(settings_file, text):
    settings_file.write_bytes(text.encode("latin-1"))
    assert may_capture() and page_language() == "en"


def test_language_is_the_one_of_the_page(settings_file):
    assert page_language() == "en"
    settings_file.write_text(json.dumps({"Comfy.Locale": "ja"}))
    assert page_language() == "ja"
