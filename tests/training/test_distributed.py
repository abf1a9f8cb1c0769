"""One run in several processes: two and three real ranks on the CPU against one device."""

from typing import Any

import pytest
import torch
from torch import nn

from cifar.base.errors import UserError
from cifar.training.batch_norm import is_synchronised, synchronise
from cifar.training.distributed import Ranks, split
from tests.training.ranks import OPTIMIZERS, SIZES, SMALL, Net, evaluated, loaded, mixed, recomputed, run_ranks, train

Found = list[dict[str, Any]]
ALONE = Ranks()


@pytest.fixture(name="found", scope="module", params=[2, 3])
def _found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Return what two or three ranks found, each."""
    return run_ranks(request.param, tmp_path_factory.mktemp("ranks"))


def assert_same(several: dict[str, Any], one: dict[str, Any]) -> None:
    """Compare weights, running statistics and measurements up to rounding."""
    torch.testing.assert_close(several["state"], one["state"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(several["rows"], one["rows"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ranks_with_statistics_of_their_own_equal_one_device_with_accumulate(found: Found, name: str) -> None:
    one = train(ALONE, name, SIZES, is_synchronised=False, accumulate=len(found))
    for rank in found:
        assert_same(rank[f"{name}/own"], one)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ranks_with_common_statistics_equal_one_device(found: Found, name: str) -> None:
    one = train(ALONE, name, SIZES, is_synchronised=True)
    for rank in found:
        assert_same(rank[f"{name}/all"], one)


def test_ranks_that_have_no_image_of_a_batch_take_the_same_step(found: Found) -> None:
    for rank in found:
        assert_same(rank["small/all"], train(ALONE, "sgd", SMALL, is_synchronised=True))


def test_parts_of_a_batch_are_divided_too(found: Found) -> None:
    for rank in found:
        own = train(ALONE, "sgd", [12] * 20, is_synchronised=False, accumulate=2 * len(found))
        assert_same(rank["parts/own"], own)
        assert_same(rank["parts/all"], train(ALONE, "sgd", SIZES, is_synchronised=True, accumulate=2))


def test_mixed_batches_are_the_same_for_one_device_and_several(found: Found) -> None:
    for rank in found:
        assert_same(rank["mixed"], mixed(ALONE))


def test_all_ranks_have_the_same_weights_to_the_last_bit(found: Found) -> None:
    for name in ("adam/own", "muon/all", "small/all", "skip", "fp16"):
        for rank in found[1:]:
            for part in ("state", "rows"):
                torch.testing.assert_close(rank[name][part], found[0][name][part], rtol=0, atol=0, equal_nan=True)


def test_a_step_that_is_not_finite_on_one_rank_is_skipped_by_all(found: Found) -> None:
    for rank in found:
        rows = rank["skip"]["rows"]
        assert [bool(torch.isfinite(row).all()) for row in rows] == [True, False, True]
        assert all(bool(torch.isfinite(values).all()) for values in rank["skip"]["state"].values())


def test_fp16_has_one_scale_on_all_ranks_and_takes_an_eighth_or_half_of_it_together(found: Found) -> None:
    scales = [rank["fp16"]["scales"] for rank in found]
    assert scales == [scales[0]] * len(found)
    first, second, third = scales[0]
    assert (second, third) == (first / 2, first / 2)
    weights = {key: values for key, values in found[0]["fp16"]["state"].items() if "running" not in key}
    assert all(bool(torch.isfinite(values).all()) for values in weights.values())


def test_batch_statistics_for_averaged_weights_are_those_of_one_device(found: Found) -> None:
    own = recomputed(ALONE, is_synchronised=False, accumulate=len(found))
    together = recomputed(ALONE, is_synchronised=True, accumulate=2)
    for rank in found:
        torch.testing.assert_close(rank["recomputed/own"], own, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rank["recomputed/all"], together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("num_images", "tta"), [(11, "none"), (11, "mirror_translate"), (1, "mirror")])
def test_evaluation_counts_every_image_once(found: Found, num_images: int, tta: str) -> None:
    one = evaluated(ALONE, num_images, tta)
    for rank in found:
        several = rank[f"evaluated/{num_images}/{tta}"]
        assert several["accuracy"] == one["accuracy"]
        assert several["tta_accuracy"] == one["tta_accuracy"]
        assert several["loss"] == pytest.approx(one["loss"], rel=1e-6)
        assert torch.equal(several["predictions"], one["predictions"])
        for column in ("confidences", "losses", "briers"):
            torch.testing.assert_close(several[column], one[column])


def test_ranks_have_the_images_of_one_device_each_augmented_as_there(found: Found) -> None:
    for number, (inputs, labels) in enumerate(loaded(ALONE)):
        assert torch.equal(torch.cat([rank["loaded"][number][0] for rank in found]), inputs)
        assert torch.equal(torch.cat([rank["loaded"][number][1] for rank in found]), labels)
        sizes = [len(rank["loaded"][number][1]) for rank in found]
        assert sizes == split(len(labels), len(found))


def test_ranks_agree_and_tell(found: Found) -> None:
    for rank in found:
        assert rank["agreed"] == [len(found) - 1, 0]
        assert rank["told"] == "from the first"
        assert rank["gathered"] == [*range(len(found))]


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("num_parts", [1, 2, 5])
def test_every_image_has_one_rank(count: int, num_parts: int) -> None:
    for num_images in (1, 2, 7, 8, 64):
        places = [Ranks(rank, count).places(num_images, num_parts) for rank in range(count)]
        assert sorted(torch.cat(places).tolist()) == [*range(num_images)]
        parts = Ranks(0, count).parts(num_images, num_parts)
        assert [sum(counts) for counts in parts] == [
            len(part) for part in torch.arange(num_images).tensor_split(len(parts))
        ]
        first = [len(part) for part in torch.arange(sum(parts[0])).tensor_split(count)]
        assert parts[0] == first


@pytest.mark.parametrize(
    ("device", "graph", "message"),
    [
        ("cuda", True, r"device\.graph=true is not possible in several processes: a recorded step can't wait"),
        ("mps", False, r"device=mps is not possible in several processes: there is one such device"),
        ("cuda", False, r"--nproc-per-node is more than the GPUs that torch finds here, 2: give each process one"),
    ],
)
def test_devices_on_which_several_ranks_cannot_work_are_refused(
    monkeypatch: pytest.MonkeyPatch, device: str, graph: bool, message: str
) -> None:
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match=message):
        Ranks(2, 3).refuse_device(torch.device(device), graph)
    Ranks().refuse_device(torch.device(device), graph)
    monkeypatch.setenv("LOCAL_RANK", "1")
    Ranks(1, 2).refuse_device(torch.device("cuda"), graph=False)


def test_alone_nothing_is_exchanged() -> None:
    values = torch.ones(3)
    ALONE.add([values])
    ALONE.take_leaders([values])
    assert values.tolist() == [1, 1, 1]
    assert (ALONE.agreed(3, 4), ALONE.told("x"), ALONE.gathered("y")) == ([3, 4], "x", ["y"])
    assert ALONE.places(4).tolist() == [0, 1, 2, 3]


def test_only_ordinary_batch_norms_are_synchronised_and_keys_stay() -> None:
    class Own(nn.BatchNorm2d):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return inputs

    net = Net()
    model = nn.Sequential(net, Own(3), nn.LayerNorm(3))
    keys = [*model.state_dict()]
    synchronise(model)
    assert [*model.state_dict()] == keys
    assert [type(module).__name__ for module in model.modules() if is_synchronised(module)] == [
        "SynchronisedBatchNorm2d"
    ] * 2
    assert isinstance(net.layers[1], nn.BatchNorm2d)
