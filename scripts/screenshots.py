"""Take the screenshots of the README and of the help pages from ComfyUI's page, with the mini family on it.

    python3 scripts/screenshots.py [names]

A name is `graph`, for docs/images/graph.png, `badge`, for web/docs/images/badge.png, or a node's id, for
web/docs/images/node_<id>.png; without one, all are taken.
"""

import sys

import environment

FRONTEND = "1.32.9"


def main() -> int:
    environment.exit_on_termination()
    try:
        made = environment.prepare()
        environment.enter(made, environment.test_tools(made.python))
        page_files = environment.frontend(FRONTEND)
    except environment.SetupError as error:
        print(error, file=sys.stderr)
        return 1
    # From here on we run beside ComfyUI's own packages, which these modules need.
    import comfy_page
    import demonstration
    from comfy_server import ComfyServer
    from page_pictures import PICTURES

    base, models = demonstration.base_folder(), demonstration.mini_family()
    demonstration.fill(base, models)
    arguments = ("--cpu", "--front-end-root", str(page_files))
    with ComfyServer(environment.comfyui_path(), base, arguments=arguments) as server:
        comfy_page.write_settings(base, {**comfy_page.SETTINGS, "Comfy.InstalledVersion": FRONTEND})
        workflow = demonstration.examples(models, server.get("/object_info"))["text_to_image"]
        with comfy_page.chromium() as browser:
            page = comfy_page.new_window(browser, 1800, 1100).new_page()
            page.goto(server.url)
            page.wait_for_function(comfy_page.READY)
            for name in sys.argv[1:] or PICTURES:
                page.evaluate("(graph) => app.loadGraphData(graph, true, true, 'SUN')", workflow.graph)
                page.evaluate(comfy_page.FRAMES, 5)
                print(f"  made: {PICTURES[name](page).name}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
