"""The page's routes, over HTTP, with the mini family's files in the model folders."""

import asyncio
import gzip
import json
import shutil
import threading
from pathlib import Path

import folder_paths
import pytest
import tomllib
import torch
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from safetensors.torch import save_file
from sun_pack.conversion import finite_json
from sun_pack.conversion.rules import RELEASED
from sun_pack.nodes import installed_files, routes, settings
from sun_pack.nodes.adapter_folder import RELEASED_ADAPTER

REPOSITORY = Path(__file__).parent.parent.parent
WEIGHTS = REPOSITORY / "demo" / "mini_family" / "weights"
CORPUS = REPOSITORY / "tests" / "conversion" / "corpus"
ADAPTER, CHECKPOINT = "sun_mini_4step.safetensors", "mini-comic.safetensors"


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Model folders `sun` and `checkpoints` with the mini family in them."""
    for kind, name in (("sun", ADAPTER), ("checkpoints", CHECKPOINT)):
        (tmp_path / kind).mkdir()
        shutil.copy(WEIGHTS / name, tmp_path / kind / name)
        known = folder_paths.folder_names_and_paths[kind][1]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, ([str(tmp_path / kind)], known))
    folder_paths.filename_list_cache.clear()
    monkeypatch.setattr(settings, "_shown", {})
    yield tmp_path
    folder_paths.filename_list_cache.clear()


def ask(method, path, body=None, **options):
    """Status and JSON of one request to a server that has these routes; `options` are those of aiohttp's client."""

    async def run():
        app = web.Application(client_max_size=2**30)
        app.router.add_get("/sun/adapters", routes.get_adapters)
        app.router.add_post("/sun/check", routes.post_check)
        app.router.add_post("/sun/plan", routes.post_plan)
        app.router.add_post("/sun/plain", routes.post_plain)
        async with TestClient(TestServer(app)) as client:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            answer = await client.request(method, f"/sun/{path}", data=None if body is None else data, **options)
            return answer.status, await answer.json()

    return asyncio.run(run())


def workflow(checkpoint=CHECKPOINT, name="text_to_image"):
    text = (CORPUS / f"{name}.json").read_text(encoding="utf-8")
    return json.loads(text.replace("v1-5-pruned-emaonly-fp16.safetensors", checkpoint))


def plan(**body):
    return ask("POST", "plan", {"action": "speed_up", "targets": None, "adapter": None, **body})


def test_adapters_that_cannot_be_used_are_told_from_the_others(folders):
    (folders / "sun" / "broken.safetensors").write_bytes(b"x" * 100)
    status, answer = ask("GET", "adapters")
    broken, mini = answer["adapters"]
    assert status == 200 and "broken.safetensors is not a safetensors file" in broken["error"]
    assert mini == {"name": ADAPTER}
    assert answer["released"]["name"] == RELEASED_ADAPTER == RELEASED["name"]
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert answer["version"] == project["version"]


def test_the_adapter_that_fits_the_checkpoint_is_chosen_by_both_headers(folders):
    status, answer = plan(workflow=workflow())
    added = next(edit for edit in answer["edits"] if edit["op"] == "add")
    assert status == 200 and answer["severity"] == "success"
    assert added["widgets"]["adapter_name"] == ADAPTER


def test_a_replaced_checkpoint_is_looked_into_again(folders):
    assert plan(workflow=workflow())[1]["edits"]
    shutil.copy(REPOSITORY / "tests" / "reference" / "unet_ldm_fp16.safetensors", folders / "checkpoints" / CHECKPOINT)
    _, answer = plan(workflow=workflow())
    assert answer["edits"] == [] and "no adapter for" in answer["detail"]


@pytest.mark.parametrize(
    ("language", "unknown", "none"),
    [
        ("en", "a model with 16 cross-attention layers and text width 48", "no U-Net with cross-attention"),
        ("zh", "一种模型（16 个交叉注意力层，文本宽度 48）", "没有交叉注意力 U-Net 的模型"),
        ("zh-TW", "一種模型（16 個交叉注意力層，文字寬度 48）", "沒有交叉注意力 U-Net 的模型"),
        (
            "ja",
            "あるモデル（クロスアテンション 16 レイヤー、テキスト幅 48）",
            "クロスアテンションを持つ U-Net のないモデル",
        ),
    ],
)
def test_a_checkpoint_without_a_family_is_described_in_the_language_of_the_page(folders, language, unknown, none):
    shutil.copy(REPOSITORY / "tests" / "reference" / "unet_ldm_fp16.safetensors", folders / "checkpoints" / CHECKPOINT)
    assert unknown in plan(workflow=workflow(), locale=language)[1]["detail"]
    save_file({"encoder.conv_in.weight": torch.zeros(1)}, folders / "checkpoints" / CHECKPOINT)
    assert none in plan(workflow=workflow(), locale=language)[1]["detail"]


def test_check_says_that_the_adapter_fits(folders):
    sped_up = workflow(name="text_to_image.expected")
    text = json.dumps(sped_up).replace(RELEASED_ADAPTER, ADAPTER)
    status, answer = ask("POST", "check", {"workflow": json.loads(text)})
    (entry,) = answer["nodes"]
    assert status == 200 and entry["graph"] is None and entry["badge"] is None
    assert entry["face"][:2] == ["mini · 7 layers · 4 steps · 0.4 MB", f"fits {CHECKPOINT}"]


@pytest.mark.parametrize(
    ("language", "sentence"),
    [
        ("en", f"{ADAPTER} is a web page, not the file itself; choose a SUN adapter (.safetensors)."),
        ("zh", f"{ADAPTER} 是网页，不是文件本身；请选择 SUN 适配器（.safetensors）。"),
        ("zh-TW", f"{ADAPTER} 是網頁，不是檔案本身；請選擇 SUN 適配器（.safetensors）。"),
        (
            "ja",
            f"{ADAPTER} はウェブページ（ファイル本体ではないもの）です。"
            + "SUN アダプター（.safetensors）を選んでください。",
        ),
    ],
)
def test_damaged_adapter_is_named_in_the_language_of_the_page(folders, language, sentence):
    (folders / "sun" / ADAPTER).write_text("<html>")
    text = json.dumps(workflow(name="text_to_image.expected")).replace(RELEASED_ADAPTER, ADAPTER)
    _, answer = ask("POST", "check", {"workflow": json.loads(text), "locale": language})
    (entry,) = answer["nodes"]
    assert entry["badge"]["detail"] == sentence


def test_graph_comes_back_without_sun(folders):
    text = json.dumps(workflow(name="text_to_image.expected")).replace(RELEASED_ADAPTER, ADAPTER)
    prompt = {"5": {"class_type": "KSampler", "inputs": {"model": ["8", 0], "steps": 4}}}
    prompt["8"] = {"class_type": "SUNSpeedUp", "inputs": {"model": ["1", 0]}}
    status, answer = ask("POST", "plain", {"workflow": json.loads(text), "prompt": prompt})
    assert status == 200 and answer["settings"] == "KSampler (#5): 25 steps, CFG 7.5"
    assert answer["prompt"] == {"5": {"class_type": "KSampler", "inputs": {"model": ["1", 0], "steps": 25}}}
    assert "SUNSpeedUp" not in json.dumps(answer["workflow"])


@pytest.mark.parametrize("body", [{}, {"workflow": 3, "prompt": {}}, {"workflow": {"nodes": []}, "prompt": []}])
def test_comparison_without_a_graph_is_refused_in_a_sentence(folders, body):
    status, answer = ask("POST", "plain", body)
    assert status == 400 and answer["error"]


def test_a_model_name_does_not_lead_out_of_the_model_folders(folders):
    (folders / "secret.safetensors").write_bytes((WEIGHTS / CHECKPOINT).read_bytes())
    assert installed_files.model_file(["../secret.safetensors"]) is None
    assert installed_files.model_file([str(folders / "secret.safetensors")]) is None
    assert installed_files.model_file(["\0.safetensors"]) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"nonsense",
        b"[1]",
        b'{"workflow": {"nodes": 3}}',
        b"[" * 100_000,
        b'{"action": [], "workflow": {"nodes": []}}',
    ],
)
@pytest.mark.parametrize("path", ["plan", "check"])
def test_a_malformed_body_is_answered_with_one_sentence(folders, path, body):
    status, answer = ask("POST", path, body)
    if path == "check" and b"[]" in body:
        assert (status, answer) == (200, {"nodes": []})
    else:
        assert status == 400 and answer["error"].endswith(".") and "\n" not in answer["error"]


@pytest.mark.parametrize(
    "content", [b"{}", b"\x1f\x8b\x08 and no more", gzip.compress(b"{}", mtime=0)[:-8] + b"\xff" * 8]
)
def test_a_body_that_is_not_compressed_as_it_says_is_refused(folders, content):
    status, answer = ask("POST", "plan", content, headers={"Content-Encoding": "gzip"})
    assert (status, answer) == (400, {"error": "The request is damaged: its content is not what its headers say."})


def test_a_compressed_body_counts_as_what_it_unpacks_to(folders):
    body = gzip.compress(b" " * (routes.LARGEST_BODY + 1))
    status, answer = ask("POST", "plan", body, headers={"Content-Encoding": "gzip"})
    assert status == 400 and "too large" in answer["error"]


def test_the_server_goes_on_while_a_large_body_is_parsed(folders, monkeypatch):
    """Each object of the body notes its thread, and how often the server's own thread has had its turn by then."""
    turns, seen = 0, []
    parsed = finite_json._object

    def noted(pairs):
        seen.append((threading.get_ident(), turns))
        return parsed(pairs)

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def post(app):
        async with TestClient(TestServer(app)) as client:
            counting = asyncio.create_task(count_turns())
            await client.post("/sun/check", data=b'{"workflow": [' + b'{"a": 1},' * 300_000 + b"{}]}")
            counting.cancel()

    monkeypatch.setattr(finite_json, "_object", noted)
    app = web.Application(client_max_size=2**30)
    app.router.add_post("/sun/check", routes.post_check)
    asyncio.run(post(app))
    (thread, first), (_, last) = seen[0], seen[-1]
    assert thread != threading.get_ident() and last > first


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e999"])
def test_a_number_that_no_browser_reads_is_answered_all_the_same(folders, number):
    body = json.dumps({"action": "speed_up", "workflow": workflow()})
    assert "7.5" in body  # the sampler's CFG
    status, answer = ask("POST", "plan", body.replace("7.5", number).encode())
    assert status == 200 and answer["edits"]


def test_a_refused_file_is_read_once(folders, monkeypatch):
    reads = []
    read_layout = installed_files.read_layout
    monkeypatch.setattr(installed_files, "read_layout", lambda path: reads.append(Path(path).name) or read_layout(path))
    broken = folders / "sun" / "broken.safetensors"
    broken.write_bytes(b"x" * 100)
    for _ in range(3):
        assert "not a safetensors file" in ask("GET", "adapters")[1]["adapters"][0]["error"]
    assert reads.count(broken.name) == 1
    broken.write_bytes(b"")
    assert "an empty file" in ask("GET", "adapters")[1]["adapters"][0]["error"]


def test_a_body_that_is_too_large_is_refused(folders):
    status, answer = ask("POST", "plan", b" " * (routes.LARGEST_BODY + 1))
    assert status == 400 and "too large" in answer["error"]


@pytest.mark.parametrize("values", [b"[],", b"{},", b"1,"])
def test_a_body_of_too_many_values_is_refused_unparsed(folders, values, monkeypatch):
    """Whatever the interpreter parses at a stretch, the whole server waits for."""
    monkeypatch.setattr(finite_json, "parse", lambda _: pytest.fail("it was parsed"))
    body = b'{"workflow": [' + values * (routes.LARGEST_BODY // len(values) - 10) + b"0]}"
    assert ask("POST", "check", body) == (
        400,
        {"error": "The workflow holds too many values for SUN; split it to convert its parts."},
    )


def test_a_workflow_of_five_thousand_nodes_has_far_fewer_values_than_the_limit(folders):
    nodes = 5_000
    large = json.loads((REPOSITORY / "example_workflows" / "08 Four negative prompts.json").read_text(encoding="utf-8"))
    copies = nodes // len(large["nodes"]) + 1
    marks = sum(map(json.dumps(large).count, "[{,")) * copies
    assert marks * 5 < routes.MOST_MARKS
