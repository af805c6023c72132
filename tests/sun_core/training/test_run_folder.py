"""Runs that are killed and go on: SIGKILL at random moments, full disks, other settings and data."""

import errno
import io
import os
import random
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tiny_run
import torch
import yaml
from safetensors import safe_open
from sun_pack.sun_core.adapter import load_adapter
from sun_pack.sun_core.errors import SunError
from sun_pack.sun_core.training import checkpoint
from sun_pack.sun_core.training.run_folder import RunFolder
from sun_pack.sun_core.whole_file import whole_file

KILLS = 20


@pytest.fixture(scope="module")
def processes():
    return tiny_run.server()


def run_until(processes, folder: Path, limit: float | None = None) -> bool:
    """Train in a process of its own, which is killed after `limit` seconds; returns whether it came to its end."""
    process = processes.Process(target=tiny_run.train_to_the_end, args=(folder,))
    process.start()
    process.join(limit)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode == 0


def assert_readable(folder: Path) -> None:
    """Check that every file that the run left under its own name is whole."""
    run = RunFolder(folder)
    if run.checkpoint.exists():
        assert torch.load(run.checkpoint, weights_only=True)["done"] >= 1
    if run.config.exists():
        assert yaml.safe_load(run.config.read_text())["steps"] == tiny_run.CONFIG.steps
    for adapter in folder.glob("*.safetensors"):
        load_adapter(adapter)


def test_killed_at_20_random_moments_it_ends_with_the_weights_of_an_undisturbed_run(processes, tmp_path):
    undisturbed = tmp_path / "undisturbed"
    assert run_until(processes, undisturbed)  # the server's start is in this one's time
    started = time.monotonic()
    assert run_until(processes, tmp_path / "measured")
    length = time.monotonic() - started
    rng, kills, attempts = random.Random(0), 0, 0
    while kills < KILLS:
        attempts += 1
        folder = tmp_path / f"killed_{attempts}"
        ended = False
        while not ended:
            limit = rng.uniform(0, length / 2) if kills < KILLS else None
            ended = run_until(processes, folder, limit)
            kills += not ended
            assert_readable(folder)
        assert not list(folder.rglob("*.part"))
        assert_same_weights(folder / "adapter.safetensors", undisturbed / "adapter.safetensors")
    assert_same_weights(tmp_path / "measured" / "adapter.safetensors", undisturbed / "adapter.safetensors")


def assert_same_weights(a: Path, b: Path) -> None:
    with safe_open(a, "pt") as first, safe_open(b, "pt") as second:
        assert first.metadata() == second.metadata()
        for key in first.keys():  # noqa: SIM118 (not a mapping)
            assert torch.equal(first.get_tensor(key), second.get_tensor(key)), key


def test_a_process_killed_while_it_writes_leaves_the_old_file(tmp_path):
    file = tmp_path / "checkpoint.pt"
    file.write_bytes(b"old")
    child = os.fork()
    if child == 0:
        with whole_file(file) as unfinished:
            unfinished.write(b"new, but")
            unfinished.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert file.read_bytes() == b"old"
    RunFolder(tmp_path).claim(tiny_run.CONFIG)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.yaml"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_named_and_the_last_checkpoint_stays(tmp_path):
    trainer, run = tiny_run.tiny_trainer(), RunFolder(tmp_path)
    run.save(trainer)
    before = run.checkpoint.read_bytes()
    unfinished = tmp_path / f"{run.checkpoint.name}.{os.getpid()}.part"
    unfinished.symlink_to("/dev/full")
    with pytest.raises(SunError, match="The disk is full"):
        run.save(trainer)
    assert run.checkpoint.read_bytes() == before
    assert not unfinished.is_symlink()


@pytest.mark.parametrize("content", [b"PK\x03\x04 and no more", b"", b"no checkpoint", b"cos\nsystem\n(S'exit 1'\ntR."])
def test_a_damaged_checkpoint_is_named(content, tmp_path):
    run = RunFolder(tmp_path)
    run.checkpoint.write_bytes(content)
    with pytest.raises(SunError, match=r"checkpoint\.pt cannot be read") as refused:
        run.resume(tiny_run.tiny_trainer())
    assert "\n" not in str(refused.value)


def test_a_checkpoint_with_a_single_damaged_byte_is_refused_whole(tmp_path):
    """Damage in the zip's padding does no harm; everything else must be found before a weight is changed."""
    run, trainer = RunFolder(tmp_path), tiny_run.tiny_trainer()
    run.save(trainer)
    whole = run.checkpoint.read_bytes()
    before = {key: weight.clone() for key, weight in trainer.distillation.adapter.state_dict().items()}
    rng, refused = random.Random(0), 0
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        run.checkpoint.write_bytes(damaged)
        try:
            run.resume(trainer)
        except SunError as error:
            assert "cannot be read" in str(error) and "\n" not in str(error)
            refused += 1
        assert all(torch.equal(w, before[key]) for key, w in trainer.distillation.adapter.state_dict().items())
    assert refused >= 35


def test_a_disk_that_fills_up_while_torch_writes_is_named(tmp_path, monkeypatch):
    """torch.save itself raises a RuntimeError, which says nothing of the disk."""

    class Full(io.FileIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    @contextmanager
    def full_disk(path):
        with whole_file(path), Full(tmp_path / "full", "w") as file:
            yield file

    monkeypatch.setattr(checkpoint, "whole_file", full_disk)
    with pytest.raises(SunError, match="The disk is full"):
        checkpoint.write_checkpoint({"weights": torch.zeros(1000)}, tmp_path / "checkpoint.pt")


def test_only_leftovers_of_this_run_are_removed(tmp_path):
    run = RunFolder(tmp_path)
    others = [tmp_path / name for name in ("film.mkv.part", "film.mkv.17.part", "sub/model.safetensors.part")]
    ours = [tmp_path / name for name in ("checkpoint.pt.17.part", "grids/step_0000001.png.17.part")]
    for file in (*others, *ours):
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"half")
    run.claim(tiny_run.CONFIG)
    assert all(file.exists() for file in others)
    assert not any(file.exists() for file in ours)


def test_a_folder_with_other_settings_is_left_as_it_is(tmp_path):
    run = RunFolder(tmp_path)
    run.claim(tiny_run.CONFIG)
    leftover = tmp_path / "checkpoint.pt.17.part"
    leftover.write_bytes(b"half")
    with pytest.raises(SunError):
        run.claim(replace(tiny_run.CONFIG, steps=7))
    assert leftover.exists()


@pytest.mark.parametrize("content", [b"\xff\xfe", b"steps: [", b"- steps", b"", b"text"])
def test_a_damaged_config_is_named(content, tmp_path):
    run = RunFolder(tmp_path)
    run.config.write_bytes(content)
    with pytest.raises(SunError, match=r"config\.yaml does not hold the settings of a run") as refused:
        run.claim(tiny_run.CONFIG)
    assert "\n" not in str(refused.value)
    assert run.config.read_bytes() == content


def test_a_run_of_an_older_version_goes_on_without_newer_settings(tmp_path):
    run = RunFolder(tmp_path)
    older = tiny_run.CONFIG.to_mapping()
    del older["channels_last"]
    run.config.write_text(yaml.safe_dump(older))
    run.claim(tiny_run.CONFIG)
    assert yaml.safe_load(run.config.read_text()) == tiny_run.CONFIG.to_mapping()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SunError, match="cannot be written to"):
        RunFolder(tmp_path / "file" / "run").claim(tiny_run.CONFIG)


def test_a_run_does_not_go_on_with_other_settings(tmp_path):
    run = RunFolder(tmp_path)
    run.claim(tiny_run.CONFIG)
    run.claim(tiny_run.CONFIG)
    with pytest.raises(SunError, match=r"learning_rate = 0\.001, and 0\.5 was asked for"):
        run.claim(replace(tiny_run.CONFIG, learning_rate=0.5))


def test_a_run_does_not_go_on_with_other_data():
    trainer = tiny_run.tiny_trainer()
    state = trainer.state_dict() | {"data": "another"}
    with pytest.raises(SunError, match="training data has changed"):
        trainer.load_state_dict(state)


def test_a_run_does_not_go_on_with_another_teacher():
    state = tiny_run.tiny_trainer().state_dict()
    weight = tiny_run.mini()[0].model.diffusion_model.out[2].weight
    kept = weight.detach().clone()
    weight.data.mul_(2)
    try:
        with pytest.raises(SunError, match="another checkpoint as the teacher"):
            tiny_run.tiny_trainer().load_state_dict(state)
    finally:
        weight.data.copy_(kept)
