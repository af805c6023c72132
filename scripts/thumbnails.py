"""Make the pictures of the templates and of the help pages by running the mini family.

    python3 scripts/thumbnails.py [names]

A name is a workflow's, for example_workflows/<name>.jpg, or a picture's, for web/docs/images/<name>.jpg; without one,
all are made.
"""

import sys

import environment


def main() -> int:
    environment.exit_on_termination()
    try:
        environment.enter(environment.prepare())
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    # From here on we run beside ComfyUI's own packages, which these modules need.
    import demonstration
    from help_pictures import HELP_PICTURES, IMAGES
    from template_pictures import TEMPLATE_PICTURES

    chosen = sys.argv[1:] or [*TEMPLATE_PICTURES, *HELP_PICTURES]
    models = demonstration.mini_family()
    with demonstration.serving(models) as (server, workflows):
        demonstration.start_from(server, demonstration.draw(server, workflows["text_to_image"], "text to image"))
        for name in chosen:
            if name in TEMPLATE_PICTURES:
                picture, folder = TEMPLATE_PICTURES[name](server, workflows[name]), demonstration.EXAMPLES
            else:
                picture, folder = HELP_PICTURES[name](server, models), IMAGES
            folder.mkdir(exist_ok=True)
            picture.save(folder / f"{name}.jpg", quality=88, optimize=True)
            print(f"  made: {name}.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
