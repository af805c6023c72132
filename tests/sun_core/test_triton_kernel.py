"""Launches of Triton's kernels, with a stand-in for Triton, which needs a GPU."""

from types import SimpleNamespace

import pytest
import torch
from sun_pack.sun_core import triton_kernel
from sun_pack.sun_core.triton_kernel import Kernel, divisor


class Triton:
    """Notes what is launched, and by whom: a compiled kernel wants as many arguments as `takes`."""

    def __init__(self, takes=12):
        self.takes, self.launched = takes, []
        driver = SimpleNamespace(get_current_stream=lambda device: f"stream of {device}")
        self.runtime = SimpleNamespace(driver=SimpleNamespace(active=driver))

    def __getitem__(self, grid):
        def compile_and_launch(*arguments):
            self.launched.append(("compiled anew", grid, arguments))
            return SimpleNamespace(run=self.run, function="function", packed_metadata="metadata")

        return compile_and_launch

    def run(self, *arguments):
        if len(arguments) != self.takes:
            raise TypeError(f"function takes exactly {self.takes} arguments")
        self.launched.append(("as it is", arguments[:3], arguments[9:]))
        assert arguments[3:9] == (f"stream of {torch.cuda.current_device()}", "function", "metadata", None, None, None)


@pytest.fixture
def current(monkeypatch):
    """Sets the current device."""

    def current(number):
        monkeypatch.setattr(torch.cuda, "current_device", lambda: number)

    current(0)
    return current


def launcher(monkeypatch, triton):
    monkeypatch.setattr(triton_kernel, "triton", triton)
    return Kernel(triton)


def test_a_kernel_is_compiled_once_for_each_kind_of_arguments_on_each_device(monkeypatch, current):
    triton = Triton()
    launch = launcher(monkeypatch, triton)
    for device, kind, address in ((0, "a", 16), (0, "a", 32), (0, "b", 16), (1, "a", 16), (1, "a", 48)):
        current(device)
        launch(kind, (1, 2, 3), [address], (7, 8))
    assert triton.launched == [
        (how, (1, 2, 3), (address, 7, 8))
        for how, address in (
            *(("compiled anew", 16), ("as it is", 32), ("compiled anew", 16)),
            *(("compiled anew", 16), ("as it is", 48)),
        )
    ]


def test_a_triton_that_launches_in_another_way_launches_by_itself(monkeypatch, current):
    triton = Triton(takes=13)
    launch = launcher(monkeypatch, triton)
    for address in (16, 32, 48):
        launch("a", (1, 2, 3), [address], (7, 8))
    assert triton.launched == [("compiled anew", (1, 2, 3), (address, 7, 8)) for address in (16, 32, 48)]


def test_what_divides_all_addresses_is_known():
    assert divisor([32, 4096], (2, 4)) == 16
    assert divisor([32, 4104], (2, 4)) == 2
