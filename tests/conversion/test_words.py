"""Messages in other languages: every text is translated, and text from a workflow is never taken for a message."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from sun_pack.conversion.check import check
from sun_pack.conversion.models import Installed
from sun_pack.conversion.plan import make_plan, read
from sun_pack.conversion.rules import LEFT_SAMPLERS, NEIGHBOURS, NOT_SUPPORTED, OTHER_NODES, RULES
from sun_pack.conversion.words import say, speaking, term

from .test_bad_input import node
from .test_corpus import load

PACK = Path(__file__).parents[2]
LANGUAGES = sorted(file.parent.name for file in PACK.glob("locales/*/messages.json"))
NAMED_BESIDE_PATTERNS = ("_OTHER_FORMATS", "_OTHER_MODELS", "_OTHER_FAMILIES")
"""Tables of sun_core: in each row, what to look for, and what to call it."""
COMMAND_ALONE = {"bad_data.py", "checkpoint.py", "pictures.py", "run_folder.py", "tensor_folder.py"}
"""What only tools/train.py uses, which speaks English."""
NAMES = {
    *("SD3", "Kolors", "SDXL", "Flux", "Chroma", "Stable Cascade", "Stable Video Diffusion", "Wan", "LTX-Video"),
    *("LTX-2", "Cosmos-Predict2", "Hunyuan-DiT", "PixArt", "Anima", "Qwen-Image", "Z-Image", "HiDream", "Lumina"),
    "AuraFlow",
}
"""Names of models that are the same in every language."""


def messages(language: str) -> dict[str, str]:
    return json.loads((PACK / "locales" / language / "messages.json").read_text(encoding="utf-8"))


def texts() -> Iterator[str]:
    """Find every text that the code says."""
    for file in (*sorted((PACK / "conversion").glob("*.py")), PACK / "nodes" / "routes.py"):
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "say":
                assert isinstance(call.args[0], ast.Constant), f"{file.name}:{call.lineno}"
                yield call.args[0].value


def texts_of_the_method() -> Iterator[str]:
    """Find every sentence of the method and the nodes, and what they call files and models."""
    files = [*(PACK / "sun_core").rglob("*.py"), *(PACK / "nodes").glob("*.py")]
    for file in sorted(file for file in files if file.name not in COMMAND_ALONE):
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(found, ast.Call) and ast.unparse(found.func) in ("Text", "SunError"):
                assert not isinstance(found.args[0], ast.JoinedStr), f"{file.name}:{found.lineno}: keep values apart"
                yield from [found.args[0].value] if isinstance(found.args[0], ast.Constant) else []
            if isinstance(found, ast.Assign) and ast.unparse(found.targets[0]) in NAMED_BESIDE_PATTERNS:
                for row in found.value.elts:
                    yield from [part.value for part in row.elts[1:]]


def terms() -> set[str]:
    """Find every name in the rules that needs a translation."""
    families = {name for _, name in RULES["families_by_name"]}
    beside = {text for neighbour in NEIGHBOURS.values() for text in neighbour if text is not None}
    return {
        name
        for name in {*NOT_SUPPORTED.values(), *LEFT_SAMPLERS.values(), *OTHER_NODES.values(), *families, *beside}
        if name not in NAMES
    }


def test_there_is_chinese_and_japanese() -> None:
    assert LANGUAGES == ["ja", "zh", "zh-TW"]


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_has_every_sentence_of_the_method_and_the_nodes(language: str) -> None:
    said = set(texts_of_the_method()) - NAMES
    assert len(said) > 100
    assert said <= messages(language).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_language_has_every_text_and_every_name(language: str) -> None:
    said, names = set(texts()), {name for name in terms() if not name.startswith("Stable Diffusion")}
    assert len(said) > 60
    assert said | names <= messages(language).keys()


@pytest.mark.parametrize("language", LANGUAGES)
def test_translation_fills_in_what_its_english_does(language: str) -> None:
    for english, translated in messages(language).items():
        assert set(re.findall(r"\{.*?\}", translated)) | {"{verb}"} == set(re.findall(r"\{.*?\}", english)) | {"{verb}"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_are_in_that_language(language: str) -> None:
    for text in messages(language).values():
        words = re.sub(r"\{.*?\}", "", text)
        assert re.search("[\u3040-\u30ff\u4e00-\u9fff]", words) or not re.search("[A-Za-z] [A-Za-z]", words), text


@pytest.mark.parametrize("language", LANGUAGES)
def test_help_pages_quote_what_that_language_says(language: str) -> None:
    """In the first column of their tables; …… stands for what a sentence fills in."""
    page = json.loads((PACK / "locales" / language / "main.json").read_text(encoding="utf-8"))
    said = [*messages(language).values(), json.dumps(page, ensure_ascii=False)]
    first_cells = [
        line.split("|")[1]
        for file in PACK.glob(f"web/docs/*/{language}.md")
        for line in file.read_text(encoding="utf-8").splitlines()
        if line.startswith("|")
    ]
    quotes = [quote for cell in first_cells for quote in re.findall("“(.+?)”|「(.+?)」(?!」|』)|『(.+?)』", cell)]
    parts = [part for quote in quotes for part in re.split("……|，|」|「", "".join(quote)) if part]
    assert len(parts) > 5
    assert [part for part in parts if not any(part in text for text in said)] == []


def test_chinese_of_taiwan_is_not_that_of_the_mainland() -> None:
    """By characters and terms that only one of them uses."""
    characters = "[这设样图个应为种们来开时发当并与该没还“”]"
    terms = "介面卡|列表|影象|圖像|許可權|型別|默認|加載|採樣|模板|命令|當前|視訊記憶體|降噪|級別|發糊"
    files = [*PACK.glob("locales/zh-TW/*.json"), *PACK.glob("web/docs/*/zh-TW.md")]
    assert len(files) > 10
    for file in files:
        for line in file.read_text(encoding="utf-8").splitlines():
            said = line.rpartition('": "')[2]  # without the key, which is English
            assert not re.search(f"{characters}|{terms}", said), f"{file}: {said}"


def test_plan_and_face_speak_the_users_language() -> None:
    with speaking("zh-TW"):
        (entry,) = check(read(load("text_to_image.expected")), Installed())
        assert entry["badge"]["text"] == "缺少適配器" and entry["face"] == ["KSampler (#5): 4 步，自動"]
    with speaking("zh"):
        assert "它的模型是 Flux" in make_plan("speed_up", load("flux")).detail
        (entry,) = check(read(load("text_to_image.expected")), Installed())
        assert entry["badge"]["text"] == "缺少适配器" and entry["face"] == ["KSampler (#5): 4 步，自动"]
    assert "its model is Flux" in make_plan("speed_up", load("flux")).detail


@pytest.mark.parametrize("language", [None, 3, [], "", "../zh", "xx"])
def test_unknown_or_malformed_language_is_english(language: object) -> None:
    with speaking(language):
        assert say("SUN is removed") == "SUN is removed"


def test_text_from_a_workflow_is_filled_in_unchanged() -> None:
    workflow = load("flux")
    node(workflow, "KSampler")["title"] = "{node} {0.__class__}"
    with speaking("zh"):
        assert "{node} {0.__class__} (#" in make_plan("speed_up", workflow).detail
        assert term("{node}") == "{node}"
