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
_LONGEST = 10
"""Characters of a language's name."""
_of_last_page = "en"


def may_capture() -> bool:
    """Say whether forwards may be captured as CUDA graphs; without a setting they may."""
    return _settings(DEFAULT_USER).get(REPLAY) is not False


def page_language(user: str = DEFAULT_USER) -> str:
    """Return the language of a user's page, such as zh; without a setting that of the page that asked last, or en."""
    return str(_settings(user).get(LANGUAGE, _of_last_page))


def remember_language(language: object) -> None:
    """Keep the language that a page named: it follows the browser, and stores none until its user chooses one."""
    global _of_last_page
    if isinstance(language, str) and len(language) <= _LONGEST:
        _of_last_page = language


def _settings(user: str) -> dict[str, Any]:
    file = Path(folder_paths.get_user_directory()) / user / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return settings if isinstance(settings, dict) else {}
