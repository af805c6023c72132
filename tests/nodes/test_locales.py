"""The nodes' words in both languages: complete, and the English ones the schemas' own."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sun_pack

LOCALES = Path(sun_pack.__file__).parent / "locales"
Words = dict[str, Any]


def schema_words() -> Words:
    """All words of the nodes, laid out as nodeDefs.json has them."""

    async def nodes() -> list[Any]:
        return await (await sun_pack.comfy_entrypoint()).get_node_list()

    words = {}
    for node in asyncio.run(nodes()):
        info = node.GET_NODE_INFO_V1()
        words[info["name"]] = {
            "display_name": info["display_name"],
            "description": info["description"],
            "inputs": input_words(info["input"]),
            "outputs": {
                str(index): {"name": name, "tooltip": tooltip}
                for index, (name, tooltip) in enumerate(zip(info["output_name"], info["output_tooltips"], strict=True))
            },
        }
    return words


def input_words(sections: dict[str, dict[str, Any]]) -> Words:
    words: Words = {}
    for name, (_, options) in (sections.get("required", {}) | sections.get("optional", {})).items():
        words[name] = {"name": options.get("display_name") or name, "tooltip": options["tooltip"]}
        if options.get("control_after_generate"):
            words["control_after_generate"] = {"name": "control after generate"}  # the page's own widget
    return words


def translation(language: str) -> Words:
    return json.loads((LOCALES / language / "nodeDefs.json").read_text(encoding="utf-8"))


def shape(words: Words) -> Any:
    """The same with every text left out."""
    return {key: shape(value) if isinstance(value, dict) else None for key, value in words.items()}


def texts(words: Words) -> list[str]:
    return [text for value in words.values() for text in (texts(value) if isinstance(value, dict) else [value])]


def test_english_is_what_the_schemas_say() -> None:
    assert translation("en") == schema_words()


@pytest.mark.parametrize("language", ["zh"])
def test_a_translation_has_every_word_of_every_node(language: str) -> None:
    assert shape(translation(language)) == shape(schema_words())
    assert all(text.strip() for text in texts(translation(language)))


def test_chinese_sentences_are_chinese() -> None:
    """Nothing was left in English but names, such as Latent and Sigmas."""
    for text in texts(translation("zh")):
        assert re.search("[\u4e00-\u9fff]", text) or " " not in text, text
