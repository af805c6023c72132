"""What the server reads of the settings dialog of the page."""

import json
from pathlib import Path

import folder_paths

REPLAY = "SUN.ReplayForwards"


def may_capture() -> bool:
    """Say whether forwards may be captured as CUDA graphs; without a setting they may."""
    file = Path(folder_paths.get_user_directory()) / "default" / "comfy.settings.json"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return True
    return not isinstance(settings, dict) or settings.get(REPLAY) is not False
