"""The stratified split."""

import pytest
import torch

from cifar.data.splits import stratified_split

LABELS = torch.tensor([0] * 50 + [1] * 30 + [2] * 20)[torch.randperm(100, generator=torch.Generator().manual_seed(0))]


@pytest.mark.parametrize(
    ("size", "counts"), [(0, [0, 0, 0]), (10, [5, 3, 2]), (11, [6, 3, 2]), (13, [6, 4, 3]), (99, [49, 30, 20])]
)
def test_every_class_gives_its_share(size: int, counts: list[int]) -> None:
    kept, held_out = stratified_split(LABELS, size, seed=3)
    assert len(held_out) == size
    assert sorted([*kept.tolist(), *held_out.tolist()]) == [*range(100)]
    assert kept.tolist() == sorted(kept.tolist())
    assert held_out.tolist() == sorted(held_out.tolist())
    assert torch.bincount(LABELS[held_out], minlength=3).tolist() == counts


def test_the_choice_is_fixed_by_the_seed_and_random_within_a_class() -> None:
    choices = [stratified_split(LABELS, 20, seed)[1].tolist() for seed in (0, 1, 2, 0)]
    assert choices[0] == choices[3]
    assert len({tuple(choice) for choice in choices}) == 3
