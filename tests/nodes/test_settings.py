"""The settings of the page that the server reads."""

import asyncio
import json
from types import SimpleNamespace

import folder_paths
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from app.user_manager import UserManager
from comfy.cli_args import args
from comfy_api.latest import io
from server import PromptServer
from sun_pack.nodes import routes
from sun_pack.nodes.apply import SUNApply, SUNSpeedUp
from sun_pack.nodes.negative import SUNNegative
from sun_pack.nodes.settings import may_capture, page_language
from sun_pack.sun_core.hooks import SunHooks


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path))
    (tmp_path / "default").mkdir()
    return tmp_path / "default" / "comfy.settings.json"


def test_forwards_may_be_captured_until_the_artist_turns_it_off(settings_file):
    assert may_capture()
    settings_file.write_text(json.dumps({"SUN.ReplayForwards": False}))
    assert not may_capture()
    settings_file.write_text(json.dumps({"SUN.ReplayForwards": True}))
    assert may_capture()


@pytest.mark.parametrize("node", [SUNSpeedUp, SUNApply, SUNNegative])
def test_every_node_that_samples_asks_for_the_setting(settings_file, node, model, adapter, monkeypatch):
    """On the CPU nothing is captured, whatever the setting."""
    monkeypatch.setattr("sun_pack.nodes.apply.adapter_named", lambda name: adapter)
    given = {"model": model, "adapter_name": "", "sun_adapter": adapter}
    inputs = {each.id: given.get(each.id, getattr(each, "default", None)) for each in node.GET_SCHEMA().inputs}
    hidden = {io.Hidden.unique_id: "7"}  # 0.3.75 takes hidden inputs as they are, 0.33 under a key
    (patched,) = node.PREPARE_CLASS_CLONE({**hidden, "hidden_inputs": hidden}).EXECUTE_NORMALIZED(**inputs).args
    hooks: SunHooks = patched.get_wrappers("outer_sample", "sun")[0].__self__
    assert hooks.may_capture()
    settings_file.write_text(json.dumps({"SUN.ReplayForwards": False}))
    assert not hooks.may_capture()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "\xff"])
def test_damaged_settings_change_nothing(settings_file, text):
    settings_file.write_bytes(text.encode("latin-1"))
    assert may_capture() and page_language() == "en"


def test_language_is_the_one_of_the_page(settings_file):
    assert page_language() == "en"
    settings_file.write_text(json.dumps({"Comfy.Locale": "ja"}))
    assert page_language() == "ja"


def test_without_the_setting_language_is_what_the_page_shows(settings_file):
    """ComfyUI's page shows the browser's language until another is chosen, and stores only that."""

    async def ask(body):
        app = web.Application()
        app.router.add_post("/sun/check", routes.post_check)
        async with TestClient(TestServer(app)) as client:
            await client.post("/sun/check", json=body)

    asyncio.run(ask({"workflow": {}, "locale": "zh"}))
    assert page_language() == "zh"
    for malformed in (["ja"], "z" * 1000):
        asyncio.run(ask({"workflow": {}, "locale": malformed}))
    asyncio.run(ask({"workflow": {}}))
    assert page_language() == "zh"
    settings_file.write_text(json.dumps({"Comfy.Locale": "ja"}))
    assert page_language() == "ja"


def test_a_route_speaks_the_language_of_the_user_who_asks(settings_file, monkeypatch):
    """As with --multi-user. What a body cannot say, since it is unreadable, the user's settings say."""
    monkeypatch.setattr(args, "multi_user", True)
    users = settings_file.parent.parent
    (users / "users.json").write_text(json.dumps({"anna_1": "anna", "default": "default"}))
    (users / "anna_1").mkdir()
    (users / "anna_1" / "comfy.settings.json").write_text(json.dumps({"Comfy.Locale": "zh-TW"}))
    settings_file.write_text(json.dumps({"Comfy.Locale": "ja"}))
    server = SimpleNamespace(user_manager=UserManager())
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)

    async def said_to(*users):
        app = web.Application()
        app.router.add_post("/sun/plan", routes.post_plan)
        async with TestClient(TestServer(app)) as client:
            answers = [await client.post("/sun/plan", data=b"{", headers={"comfy-user": user}) for user in users]
            return [(await answer.json())["error"] for answer in answers]

    anna, nobody = asyncio.run(said_to("anna_1", "../anna_1"))
    assert (anna, nobody) == ("請求不是有效的 JSON。", "リクエストが有効な JSON ではありません。")


def test_a_request_that_names_no_language_is_answered_in_that_of_the_page(settings_file, tmp_path, monkeypatch):
    settings_file.write_text(json.dumps({"Comfy.Locale": "ja"}))
    extensions = folder_paths.folder_names_and_paths["sun"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "sun", ([str(tmp_path)], extensions))
    folder_paths.filename_list_cache.clear()
    (tmp_path / "empty.safetensors").touch()

    async def said():
        app = web.Application()
        app.router.add_get("/sun/adapters", routes.get_adapters)
        app.router.add_post("/sun/check", routes.post_check)
        async with TestClient(TestServer(app)) as client:
            checked = await client.post("/sun/check", json={"workflow": {}})
            (adapter,) = (await (await client.get("/sun/adapters")).json())["adapters"]
            return (await checked.json())["error"], adapter["error"]

    checked, adapter = asyncio.run(said())
    assert checked == "ComfyUI のワークフローではありません：ノードのリストがありません。"
    assert adapter.startswith("empty.safetensors は空のファイルです。")
