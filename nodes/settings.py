"""What the server reads of the settings dialog of the page.

With --multi-user each user has settings. A request names its user, but a prompt does not: ComfyUI queues the JSON of
POST /prompt alone. So what runs and checks of a prompt say and do follows the settings of the user `default`.
"""

import json
from pathlib import Path
from typing import Any

import folder_paths

REPLAY = "SUN.ReplayForwards"
LANGUAGE = "Comfy.Locale"
DEFAULT_USER = "default"
"""The one user that most servers have."""

LONGEST_LANGUAGE = 10
"""Characters of a language's name, such as zh-TW."""
_shown: dict[str, str] = {}
"""The language that each user's page showed last."""


def may_capture() -> bool:
    """Say whether forwards may be captured as CUDA graphs; without a setting they may."""
    return _settings(DEFAULT_USER).get(REPLAY) is not False


def page_language(user: str = DEFAULT_USER) -> str:
    """Return the language of a user's page, such as zh; en if neither the settings nor the page has told one."""
    return str(_settings(user).get(LANGUAGE, _shown.get(user, "en")))


def remember_language(user: str, language: object) -> None:
    """Remember what a user's page shows: until a language is chosen, that is the browser's, and no setting says so."""
    if isinstance(language, str) and len(language) <= LONGEST_LANGUAGE:
        _shown[user] = language


def _settings(user: str) -> dict[str, Any]:
    file = Path(folder_paths.get_user_directory()) / user / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
