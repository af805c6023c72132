"""What the server reads of the settings dialog of the page."""

import json
from pathlib import Path
from typing import Any

import folder_paths

REPLAY = "SUN.ReplayForwards"
LANGUAGE = "Comfy.Locale"


def may_capture() -> bool:
    """Say whether forwards may be captured as CUDA graphs; without a setting they may."""
    return _settings().get(REPLAY) is not False


def page_language() -> str:
    """Return the language of the page, such as zh; en without a setting."""
    return str(_settings().get(LANGUAGE, "en"))


def _settings() -> dict[str, Any]:
    """Read the settings of the one user that most servers have."""
    file = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
