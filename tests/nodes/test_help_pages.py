"""The help pages: each node has one in each language. It names all inputs, and its pictures exist."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sun_pack

DOCS = Path(sun_pack.__file__).parent / "web" / "docs"
LOCALES = DOCS.parents[1] / "locales"
TRANSLATIONS = ("zh", "zh-TW", "ja")
SHOWN_IN_PICTURES = {"yellow", "blurry, yellow", "at sunset", "日落时", "日落時", "夕暮れ", "30 steps"}
"""Quoted prompts, and a badge in English."""


def schemas() -> list[Any]:
    async def nodes() -> list[Any]:
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    return [node.GET_SCHEMA() for node in asyncio.run(nodes())]


def pages(node_id: str) -> list[Path]:
    """Return the files where ComfyUI's page looks: English, which is the default, and one for each translation."""
    return [DOCS / f"{node_id}.md", *(DOCS / node_id / f"{language}.md" for language in TRANSLATIONS)]


def pictures(page: Path) -> list[Path]:
    """Return the pictures of a page. ComfyUI's page resolves them against docs/, in whatever folder the page is."""
    return [DOCS / name for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8"))]


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_every_input_is_explained_in_every_language(schema: Any) -> None:
    for page in pages(schema.node_id):
        text = page.read_text(encoding="utf-8")
        for one in schema.inputs:
            assert f"`{one.id}`" in text, f"{page}: {one.id}"


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_a_page_says_when_to_use_the_node_and_what_mistakes_look_like(schema: Any) -> None:
    english, japanese = ("When to use it", "Mistakes and what they look like"), ("いつ使うか", "うまくいかないとき")
    headings = english, ("什么时候用", "常见问题"), ("什麼時候用", "常見問題"), japanese
    for page, (when, mistakes) in zip(pages(schema.node_id), headings, strict=True):
        sections = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
        said = {heading: text for heading, _, text in (section.partition("\n") for section in sections)}
        assert len(said[when].strip()) > 20, page
        assert "|---|---|---|" in said[mistakes], page


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_a_translated_page_has_every_section_row_and_point(schema: Any) -> None:
    english, *others = (page.read_text(encoding="utf-8") for page in pages(schema.node_id))
    for other in others:
        for start in ("## ", "|", "- "):
            pattern = re.compile(f"^{re.escape(start)}", re.MULTILINE)
            assert len(pattern.findall(other)) == len(pattern.findall(english)), f"{start}: {other[:40]}"


def said_in(language: str) -> list[str]:
    """Return all texts that the pack shows in a language; English has its messages as the keys of the others."""
    folder = LOCALES / language
    messages = json.loads((LOCALES / "zh" / "messages.json").read_text(encoding="utf-8"))
    if language != "en":
        messages = json.loads((folder / "messages.json").read_text(encoding="utf-8")).values()
    words = [re.findall(r': "(.+)"', file.read_text(encoding="utf-8")) for file in folder.glob("*.json")]
    return [*messages, *(word for some in words for word in some)]


@pytest.mark.parametrize("language", ["en", *TRANSLATIONS])
def test_a_page_quotes_what_its_reader_sees(language: str) -> None:
    """A reader finds the remedy by the words on the screen; some messages are put together at their commas."""
    said = said_in(language)
    for page in sorted(DOCS.glob("*.md" if language == "en" else f"*/{language}.md")):
        for quoted in set(re.findall("[“「]([^“”「」]+)[”」]", page.read_text(encoding="utf-8"))) - SHOWN_IN_PICTURES:
            for part in re.split("…+", quoted):
                whole = part.strip().removeprefix("is ")
                for piece in [whole] if any(whole in text for text in said) else re.split("[,，、]", whole):
                    assert any(piece.strip() in text for text in said), f"{page}: {quoted}"


@pytest.mark.parametrize("schema", schemas(), ids=lambda schema: schema.node_id)
def test_every_language_shows_the_same_pictures_and_they_exist(schema: Any) -> None:
    english, *others = (pictures(page) for page in pages(schema.node_id))
    assert english
    assert all(other == english for other in others)
    for picture in english:
        assert picture.is_file(), picture


def test_no_picture_is_left_over() -> None:
    shown = {picture for schema in schemas() for page in pages(schema.node_id) for picture in pictures(page)}
    assert set((DOCS / "images").iterdir()) == shown
