"""What the commands in scripts/ stand on."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
