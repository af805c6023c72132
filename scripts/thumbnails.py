"""Make the pictures of the example workflows, example_workflows/*.jpg, by running them on the mini family.

python3 scripts/thumbnails.py
"""

import sys

import environment

SIZE = 384  # pixels, what the template browser shows at most


def main() -> int:
    environment.exit_on_termination()
    try:
        environment.enter(environment.prepare())
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    import demonstration
    from comparison import enlarged
    from PIL import Image

    with demonstration.serving(demonstration.mini_family()) as (server, workflows):
        single = {name: workflows[name] for name in ("text_to_image", "image_to_image")}
        tiles = {name: [demonstration.draw(server, workflow, name)] for name, workflow in single.items()}
        before_after = workflows["before_after"]
        made = demonstration.queue(server, before_after, "before_after")
        tiles["before_after"] = [made.pictures[before_after.node_id(title)] for title in ("Save plain", "Save SUN")]
    for name, pngs in tiles.items():
        sheet = Image.new("RGB", (SIZE, SIZE))
        width = SIZE // len(pngs)
        for column, png in enumerate(pngs):
            tile = enlarged(png, SIZE)
            left = (SIZE - width) // 2
            sheet.paste(tile.crop((left, 0, left + width, SIZE)), (column * width, 0))
        sheet.save(demonstration.EXAMPLES / f"{name}.jpg", quality=90)
    return 0


if __name__ == "__main__":
    sys.exit(main())
