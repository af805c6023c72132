"""Every picture that the mini family draws, by name, and the file that each becomes."""

from collections.abc import Iterable
from pathlib import Path

from ..server.demo_models import mini_family
from ..server.demonstration import draw, serving
from ..server.example_workflows import example_file, start_from
from .help_pictures import HELP_PICTURES, IMAGES
from .readme_picture import README_PICTURE, comparison
from .template_pictures import TEMPLATE_PICTURES

DRAWN: dict[str, Path] = {
    **{name: example_file(name).with_suffix(".jpg") for name in TEMPLATE_PICTURES},
    **{name: IMAGES / f"{name}.jpg" for name in HELP_PICTURES},
    README_PICTURE.stem: README_PICTURE,
}


def make_drawn(names: Iterable[str]) -> None:
    """Draw the pictures of these names in a ComfyUI and write them to their files."""
    models = mini_family()
    with serving(models) as (server, workflows):
        start_from(server, draw(server, workflows["text_to_image"], "text to image"))
        for name in names:
            file = DRAWN[name]
            if name in TEMPLATE_PICTURES:
                picture = TEMPLATE_PICTURES[name](server, workflows[name])
            elif name in HELP_PICTURES:
                picture = HELP_PICTURES[name](server, models)
            else:
                picture = comparison(server, models)
            file.parent.mkdir(exist_ok=True)
            picture.save(file, quality=88, optimize=True, progressive=True)
            print(f"  made: {file.name}")
