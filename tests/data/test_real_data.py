"""Both models on real batches, the constants, and a hand-written loop as the reference for the framework's."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn, optim
from torch.nn import functional as F
from torch.utils.data import DataLoader, Subset
from torchvision import datasets, transforms

from cifar.data.images import channel_statistics
from cifar.data.sources.cifar10 import CIFAR10
from cifar.data.sources.cifar100 import CIFAR100
from cifar.data.sources.svhn import SVHN
from cifar.experiment.building import build_parts
from cifar.experiment.loaders import build_loaders
from cifar.experiment.run import build_trainer
from cifar.models.resnet import resnet50
from cifar.models.vgg import vgg16
from cifar.tracking.tracking import RunInfo
from cifar.training.devices.fast_conv import speed_up
from tests.conftest import QUIET, ROOT, Command, Compose, read_metrics, read_summary

QUIET_ON_CIFAR10 = [word for word in QUIET if not word.startswith("data")] + ["data.limit=100", "data.test_limit=50"]
REPORT_MEAN, REPORT_STD = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]


def test_per_pixel_mean_and_std(cifar10_root: str, compose: Compose) -> None:
    pixels = CIFAR10(cifar10_root, []).load().train_images.double().div(255)
    data = compose("data=cifar10").data
    assert [round(value, 4) for value in pixels.mean((0, 2, 3)).tolist()] == list(data.mean)
    assert [round(value, 4) for value in pixels.std((0, 2, 3)).tolist()] == list(data.std)
    found = channel_statistics(CIFAR10(cifar10_root, []).load().train_images)
    assert found == (list(data.mean), list(data.std))


def test_per_pixel_mean_and_std_of_cifar100(cifar10_root: str, compose: Compose) -> None:
    if not (Path(cifar10_root) / "cifar-100-python").is_dir():
        pytest.skip("CIFAR10_ROOT has no cifar-100-python")
    data = compose("data=cifar100").data
    found = channel_statistics(CIFAR100(cifar10_root, "fine", [], None).load().train_images)
    assert found[0] == pytest.approx([*data.mean], abs=1e-4)
    assert found[1] == pytest.approx([*data.std], abs=1e-4)


def test_per_pixel_mean_and_std_of_svhn(cifar10_root: str, compose: Compose) -> None:
    if not (Path(cifar10_root) / "train_32x32.mat").is_file():
        pytest.skip("CIFAR10_ROOT has no train_32x32.mat")
    data = compose("data=svhn").data
    found = channel_statistics(SVHN(cifar10_root, [], None).load().train_images)
    assert found[0] == pytest.approx([*data.mean], abs=1e-4)
    assert found[1] == pytest.approx([*data.std], abs=1e-4)


def test_the_reports_std_is_a_mean_of_per_image_stds(cifar10_root: str, compose: Compose) -> None:
    pixels = CIFAR10(cifar10_root, []).load().train_images.float().div(255)
    per_image = pixels.flatten(2).std(dim=2, correction=0).mean(dim=0)
    assert per_image.tolist() == pytest.approx(REPORT_STD, abs=2e-4)
    for experiment in ("report_resnet50", "report_vgg16"):
        data = compose(f"experiment={experiment}").data
        assert (list(data.mean), list(data.std)) == (REPORT_MEAN, REPORT_STD)


def test_images_are_torchvisions(cifar10_root: str) -> None:
    images = CIFAR10(cifar10_root, []).load()
    reference = datasets.CIFAR10(cifar10_root, train=False)
    assert images.train_images.shape == (50_000, 3, 32, 32)
    assert torch.bincount(images.train_labels).tolist() == [5000] * 10
    assert torch.equal(images.test_images.permute(0, 2, 3, 1), torch.from_numpy(reference.data))
    assert images.test_labels.tolist() == reference.targets
    assert images.class_names == reference.classes


def test_the_next_process_finds_them_decoded_and_does_without_torchvision(cifar10_root: str, tmp_path: Path) -> None:
    code = (
        "import sys; from cifar.data.sources.cifar10 import CIFAR10; "
        f"images = CIFAR10({cifar10_root!r}, [], {str(tmp_path)!r}).load(); "
        "print(int(images.train_images.sum()), int(images.test_images.sum()), 'torchvision' in sys.modules)"
    )
    first, second = (
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout.split()
        for _ in range(2)
    )
    assert first[:2] == second[:2]
    assert (first[2], second[2]) == ("True", "False")


def plain_losses(
    root: str, build: Callable[[], nn.Module], make_optimizer: Callable[..., optim.Optimizer], num_steps: int
) -> list[float]:
    """Return the losses of the loop that everybody writes, on the first images in their order."""
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(REPORT_MEAN, REPORT_STD)])
    dataset = Subset(datasets.CIFAR10(root, train=True, transform=transform), range(20 * num_steps))
    torch.manual_seed(0)
    model = build()
    optimizer = make_optimizer(model.parameters())
    losses = []
    model.train()
    own_generator = torch.Generator()  # else the DataLoader takes a number from the global one, which dropout uses
    for inputs, labels in DataLoader(dataset, batch_size=20, shuffle=False, generator=own_generator):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    ("experiment", "build", "overrides", "make_optimizer"),
    [
        ("report_resnet50", resnet50, [], lambda parameters: optim.Adam(parameters, lr=0.001)),
        (
            "report_vgg16",
            vgg16,
            ["optimizer=sgd", "lr=0.05"],
            lambda parameters: optim.SGD(parameters, lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4),
        ),
    ],
)
def test_ten_steps_equal_a_hand_written_loop(
    cifar10_root: str,
    tmp_path: Path,
    compose: Compose,
    experiment: str,
    build: Callable[[], nn.Module],
    overrides: list[str],
    make_optimizer: Callable[..., optim.Optimizer],
) -> None:
    cfg = compose(
        f"experiment={experiment}", "augment=none", "data.shuffle=false", f"data.root={cifar10_root}", "device=plain",
        "optimizer.fused=false", "data.limit=200", "batch_size=20",
        "log_every=1", "tracker=none", "epochs=1", *overrides,
    )  # fmt: skip
    expected = plain_losses(cifar10_root, build, make_optimizer, num_steps=10)
    parts = build_parts(cfg, RunInfo("run", None, {}))
    build_trainer(cfg, parts, build_loaders(cfg, parts), tmp_path, facts={"init_hash": None}).fit()
    losses = [line["train/loss"] for line in read_metrics(tmp_path) if "train/loss" in line]
    assert len(losses) == 10
    assert losses == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("build", [resnet50, vgg16])
def test_fast_convolutions_give_the_same_losses_and_gradients(
    cifar10_root: str, build: Callable[[], nn.Module]
) -> None:
    """Two real batches at fixed weights: losses within 1e-4, gradients as close to float64 as the plain model's."""
    images = CIFAR10(cifar10_root, []).load()
    inputs = images.train_images[:100].float().div(255).sub(0.45).div(0.25).view(2, 50, 3, 32, 32)
    labels = images.train_labels[:100].view(2, 50)
    torch.manual_seed(0)
    plain = build().eval()  # without dropout, and with batch norm as it is
    fast, exact = copy.deepcopy(plain), copy.deepcopy(plain).double()
    speed_up(fast)
    fast.to(memory_format=torch.channels_last)
    errors: dict[str, list[float]] = {"plain": [], "fast": []}
    for batch, targets in zip(inputs, labels, strict=True):
        loss = F.cross_entropy(exact(batch.double()), targets)
        expected = torch.cat([grad.flatten() for grad in torch.autograd.grad(loss, [*exact.parameters()])])
        for name, model in (("plain", plain), ("fast", fast)):
            own_loss = F.cross_entropy(model(batch.to(memory_format=torch.channels_last)), targets)
            grads = torch.cat([grad.flatten() for grad in torch.autograd.grad(own_loss, [*model.parameters()])])
            errors[name].append(float((grads - expected).norm() / expected.norm()))
            assert own_loss.item() == pytest.approx(loss.item(), abs=1e-4)
    assert max(errors["fast"]) < 5 * max(errors["plain"])


def test_a_sweeps_jobs_share_the_images_and_nothing_else(cifar10_root: str, tmp_path: Path, command: Command) -> None:
    words = [*QUIET_ON_CIFAR10, f"data.root={cifar10_root}"]
    swept = command("-m", *words, "lr=0.1,0.01", "hydra.sweep.dir=swept")
    alone = command(*words, "lr=0.01", "hydra.run.dir=alone")
    assert (swept.returncode, alone.returncode) == (0, 0)
    names = ("test_loss", "train_loss", "config_hash")
    summaries = [read_summary(tmp_path / folder) for folder in ("swept/1", "alone")]
    assert [summaries[0][name] for name in names] == [summaries[1][name] for name in names]
    assert summaries[0]["setup_seconds"] < read_summary(tmp_path / "swept/0")["setup_seconds"]
    images = CIFAR10(cifar10_root, []).load()
    assert CIFAR10(cifar10_root, []).load() is images
