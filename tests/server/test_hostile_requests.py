"""Requests that no page sends, to a real server with hostile files in its folder: each gets an answer in JSON."""

import gzip
import http.client
import json
import random
from collections.abc import Iterator

import psutil
import pytest
from workshop.server.comfy_server import ANSWER_LIMIT, ComfyServer

from ..conversion.hostile import JUNK, TIMES, assert_is_one_sentence, hostile_workflow
from ..sun_core.test_hostile_adapters import KINDS

SEEDS, CASES, FILES = 3, 100, 40
MOST_MEMORY = 600 * 2**20
"""What the server may gain: a body of 16 MB takes many times as much while it is parsed."""

Request = tuple[str, str, bytes, dict[str, str]]
"""Method, path, body, headers."""


def body_of(rng: random.Random) -> bytes:
    """A request of the page, some of whose fields are junk."""
    body = {"action": "speed_up", "targets": None, "adapter": None, "locale": "zh", "workflow": hostile_workflow(rng)}
    for name in rng.sample(list(body), rng.choice((0, 1, 2, 5))):
        body[name] = rng.choice((*JUNK, "restore", "fix", [{"graph": None, "node": 3}], "\0", "../zh", "ja"))
    return json.dumps(body).encode()


def junk_fields(rng: random.Random) -> Request:
    return "POST", rng.choice(("plan", "check")), body_of(rng), {}


def damaged_bytes(rng: random.Random) -> Request:
    body = bytearray(body_of(rng))
    for _ in range(rng.choice((1, 5, 100))):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return "POST", rng.choice(("plan", "check")), bytes(body[: rng.choice((len(body), rng.randrange(len(body))))]), {}


def not_an_object(rng: random.Random) -> Request:
    deep = (b"[" * 10**5, b'{"workflow":' * 10**5, b'{"workflow": ' + b"[" * 900 + b"]" * 900 + b"}")
    others = (b"", b"3", b"[]", b"null", b'"x"', b"\xff\xfe", '{"workflow": {}}'.encode("utf-16"), b"9" * 5000, b"NaN")
    return "POST", rng.choice(("plan", "check")), rng.choice((*deep, *others)), {}


def wrong_encoding(rng: random.Random) -> Request:
    body = body_of(rng)
    packed = gzip.compress(rng.choice((body, b" " * (20 * 2**20))))
    spoilt = rng.choice((body, packed, packed[: len(packed) // 2], packed[:20] + rng.randbytes(50), b""))
    return "POST", rng.choice(("plan", "check")), spoilt, {"Content-Encoding": rng.choice(("gzip", "deflate", "GZIP"))}


def wrong_type(rng: random.Random) -> Request:
    kind = rng.choice(("text/html", "multipart/form-data; boundary=x", "application/json; charset=utf-16", "", "\xff"))
    return "POST", rng.choice(("plan", "check")), body_of(rng), {"Content-Type": kind}


def adapters(rng: random.Random) -> Request:
    return "GET", "adapters?" + rng.choice(("", "a=%00", "x" * 2000, "name=../../etc/passwd")), b"", {}


KINDS_OF_REQUESTS = [junk_fields, junk_fields, damaged_bytes, not_an_object, wrong_encoding, wrong_type, adapters]


@pytest.fixture
def hostile_files(server: ComfyServer) -> Iterator[None]:
    """Hostile files in models/sun."""
    rng, folder = random.Random(0), server.base / "models" / "sun"
    files = [folder / f"hostile{number}.safetensors" for number in range(FILES)]
    for file in files:
        file.write_bytes(rng.choice(KINDS)(rng, server.base / "executed"))
    yield
    for file in files:
        file.unlink()
    english = json.dumps({"workflow": None, "locale": "en"}).encode()
    answer_to(server, ("POST", "check", english, {}))  # runs speak the language of the last page
    assert not (server.base / "executed").exists()


@pytest.mark.usefixtures("hostile_files", "reference_picture")
@pytest.mark.parametrize("seed", range(SEEDS))
def test_hostile_request_is_answered_in_json_and_the_server_stays(server: ComfyServer, seed: int) -> None:
    rng, process = random.Random(seed), psutil.Process(server.process_id)
    logged, memory = len(server.log_file.read_bytes()), process.memory_info().rss
    statuses = [answer_to(server, rng.choice(KINDS_OF_REQUESTS)(rng)) for _ in range(CASES * TIMES)]
    assert {200, 400} == set(statuses)
    assert process.memory_info().rss - memory < MOST_MEMORY
    log = server.log_file.read_bytes()[logged:].decode(
        errors="replace"
    )  # aiohttp itself logs bodies that cannot be read
    assert "Error handling request" not in log and "SUN could not" not in log


def answer_to(server: ComfyServer, request: Request) -> int:
    """The status of the answer, which must be JSON, and one sentence if it is an error."""
    method, path, body, headers = request
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=ANSWER_LIMIT)
    connection.request(method, f"/sun/{path}", body or None, headers)
    with connection.getresponse() as response:
        answer = json.loads(response.read(), parse_constant=pytest.fail)
    connection.close()
    if response.status != 200:
        assert_is_one_sentence(answer["error"])
    for adapter in answer.get("adapters", ()):
        if "error" in adapter:
            assert_is_one_sentence(adapter["error"])
    return response.status
