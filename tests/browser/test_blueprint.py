"""The blueprint that the pack adds to ComfyUI's node library."""

from workshop.server.demo_models import Models

from .page import CanvasPage

NAME = "SD1.5 in 4 steps (SUN)"


def test_the_node_of_the_library_draws_an_image(page: CanvasPage, models: Models) -> None:
    page.page.evaluate("app.graph.clear()")
    page.command("Workspace.SearchBox.Toggle")
    page.page.locator(".comfy-vue-node-search-container input, [role=dialog] input").first.fill(NAME)
    page.page.get_by_text(NAME).first.wait_for()
    page.press("Enter")
    page.page.mouse.click(700, 400)  # newer pages let the user choose the place
    page.page.wait_for_function("app.graph.nodes.length === 1")
    node = page.page.evaluate("""() => {
        const [node] = app.graph.nodes
        const save = LiteGraph.createNode('SaveImage')
        app.graph.add(save)
        node.connect(0, save, 0)
        return Number(node.id)
    }""")
    settings = {"checkpoint": models.checkpoint.name, "adapter": models.adapter.name, "positive": models.positive}
    for name, value in {**settings, "width": models.width, "height": models.height}.items():
        page.set_value(node, name, value)
    page.run_workflow()
    assert page.picture_size() == (models.width, models.height)
