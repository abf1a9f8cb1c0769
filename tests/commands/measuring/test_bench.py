"""The yardstick: what it measures, and what it prints."""

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.commands.measuring import bench
from cifar.commands.measuring.bench import OURS, PLAIN, Pictures, matmul_rate, our_loop, plain_loop, step_flops, table
from cifar.data.images import Images
from cifar.experiment.typed.compose import compose_words
from cifar.training.devices.device import Device
from tests.conftest import QUIET


def test_the_plain_loop_gives_the_pictures_of_torchvision() -> None:
    pixels = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    images = Images(pixels, torch.arange(4), pixels, torch.arange(4), [])
    pictures = Pictures(images, lambda picture: picture)
    assert len(pictures) == 4
    picture, label = pictures[2]
    assert label == 2
    assert picture.size == (32, 32)
    assert picture.getpixel((1, 3)) == tuple(pixels[2, :, 3, 1].tolist())


@pytest.mark.parametrize("make", [plain_loop, our_loop])
def test_a_turn_trains_and_the_wait_for_batches_is_part_of_it(make: Any) -> None:
    cfg, _ = compose_words(QUIET)
    contestant = make(cfg)
    timing = contestant.take_turn(12)  # more than an epoch
    assert 0 < timing.loading < timing.total


def test_flops_are_those_of_the_definition() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 32 * 32, 10))
    convolution, linear = 2 * 32 * 32 * 8 * 27, 2 * 8 * 32 * 32 * 10
    assert step_flops(model, 5, torch.device("cpu")) == 5 * (2 * convolution + 3 * linear)  # images have no gradient


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_floor_is_that_of_the_numbers_in_use(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[torch.dtype] = []
    monkeypatch.setattr(bench, "MATMUL_SIZE", {"cpu": 64})
    monkeypatch.setattr(torch.Tensor, "__matmul__", lambda left, right: multiplied.append(left.dtype))
    assert matmul_rate(Device(torch.device("cpu"), precision)) > 0
    assert {*multiplied} == {bench.DTYPES[precision]}


def test_both_are_compared_in_turn_and_written_down(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "peak_memory", lambda name, words: 2**30)
    monkeypatch.setattr(bench, "in_own_process", lambda function, *arguments: function(*arguments))
    words = [word for word in QUIET if not word.startswith(("device", "tracker", "batch_size"))]
    arguments = ["--device", "cpu", "--batch-size", "10", "--threads", "1", "--steps", "2", "--rounds", "3"]
    path = tmp_path / "not" / "yet" / "out.jsonl"
    bench.bench([*arguments, "--log", str(path), "--set", *words])
    (result,) = map(json.loads, path.read_text().splitlines())
    assert len(result["rounds"]) == len(result["ratios"]) == 3
    for turn, ratio in zip(result["rounds"], result["ratios"], strict=True):
        assert ratio == turn[PLAIN]["total"] / turn[OURS]["total"]
    assert result["floor_seconds"] == result["flops"] / result["matmul_flops_per_second"]
    shown = capsys.readouterr()
    assert shown.out == table(result) + "\n"
    rounds = [
        ", ".join(f"{name} {500 * turn[name]['total']:.1f}" for name in (PLAIN, OURS)) for turn in result["rounds"]
    ]
    assert shown.err.splitlines() == [
        "model=resnet50: measuring the memory in processes of their own …",
        "model=resnet50: warming up …",
        *(f"model=resnet50: round {number} of 3: {text} ms per step" for number, text in enumerate(rounds, start=1)),
    ]


def test_on_a_gpu_the_memory_is_measured_while_warming_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lay there before is no part of it."""
    held = iter([100, 300])  # before the plain loop, before ours
    peaks = iter([250, 900])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: next(held))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: next(peaks))
    monkeypatch.setattr(bench, "LOOPS", {name: lambda cfg: SimpleNamespace(take_turn=int) for name in (PLAIN, OURS)})
    found = [bench.warmed_up(name, compose_words(QUIET)[0])[1] for name in (PLAIN, OURS)]
    assert found == [150, 600]


def test_the_table_to_the_digit() -> None:
    ours = {"total": 1.0, "loading": 0.01}
    turns = [{PLAIN: {"total": plain, "loading": 0.1 * plain}, OURS: ours} for plain in (2.0, 1.5, 3.0)]
    result = {
        "words": ["model=x"], "device": "cpu (X)", "batch_size": 100, "num_steps": 4, "rounds": turns,
        "ratios": [2.0, 1.5, 3.0], "peak_bytes": {PLAIN: 2**30, OURS: 2**31}, "flops": 50e9,
        "matmul_flops_per_second": 200e9, "matmul_numbers": "bf16", "floor_seconds": 0.25,
    }  # fmt: skip
    assert table(result).splitlines() == [
        "model=x on cpu (X), 3 rounds of 4 steps in turn",
        "         ms per step  images/s  loading  peak memory",
        "plain          500.0       200    10.0%     1.00 GiB",
        "run.py         250.0       400     1.0%     2.00 GiB",
        "floor          250.0       400  50 GFLOP a step at 200 GFLOP/s of a large bf16 matrix product",
        "ratio           2.00  (from 1.50 to 3.00)",
    ]


def test_impossible_numbers_are_refused() -> None:
    with pytest.raises(SystemExit):
        bench.bench(["--steps", "0"])


def test_results_that_could_not_be_written_are_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "compare", lambda *arguments: pytest.fail("measured"))
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "out.json"):
        with pytest.raises(UserError, match="can't be written"):
            bench.bench(["--log", str(path)])


def test_a_killed_process_ends_the_comparison() -> None:
    with pytest.raises(UserError, match="memory"):
        bench.in_own_process(os._exit, 9)
