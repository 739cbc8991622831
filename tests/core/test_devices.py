"""Where models run: the device that was asked for, or the best one; what is not here is one line."""

import pytest

from repro import load
from repro.core import devices


@pytest.fixture(autouse=True)
def nothing_taken():
    yield
    devices.take_device()


def test_a_device_that_is_not_here(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices.device("cuda:1") == "cuda:1"
    for name, message in (
        ("cuda:2", "device cuda:2: 2 GPUs are visible to torch here; use "),
        ("cudda", "no device 'cudda'; nearest is 'cuda'"),
        ("cpu:0", "no device 'cpu:0'; nearest is 'cpu'"),
    ):
        with pytest.raises(ValueError, match=message):
            devices.device(name)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    with pytest.raises(ValueError, match="device cuda: 0 GPUs are visible to torch here; use cpu"):
        load("oracle:mdlm@nano", device="cuda")


def test_what_was_taken_holds_until_another_is(monkeypatch):
    monkeypatch.setattr(devices, "_best", lambda: "mps")
    assert devices.device() == "mps"
    assert devices.take_device("cpu") == "cpu" == devices.device()
    assert devices.take_device() == "mps" == devices.device()


def test_a_launcher_gives_each_process_its_gpu(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    taken = []
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    devices.take_device("cuda:1")
    monkeypatch.setenv("LOCAL_RANK", "3")
    devices.take_device("cuda")
    assert taken == [1, 1]
    with pytest.raises(ValueError, match="the launcher gives each process a GPU"):
        devices.take_device("cuda:0")
    devices.take_device("cpu")
