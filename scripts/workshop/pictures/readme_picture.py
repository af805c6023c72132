"""The README's picture."""

from PIL import Image

from .. import REPOSITORY
from ..server.comfy_server import ComfyServer
from ..server.demo_models import Models

README_PICTURE = REPOSITORY / "docs" / "images" / "comparison.png"


def comparison(server: ComfyServer, models: Models) -> Image.Image:
    raise NotImplementedError
