"""The scores of single images, against scikit-learn and closed forms."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from cifar.training.evaluating.scores import joined, scores


def test_they_are_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn((50, 7), generator=generator)
    labels = torch.randint(0, 7, (50,), generator=generator)
    probabilities = logits.double().softmax(dim=1).numpy()
    found = scores(logits, labels)
    np.testing.assert_array_equal(found.predictions, probabilities.argmax(axis=1))
    np.testing.assert_allclose(found.confidences, probabilities.max(axis=1), rtol=1e-5)
    assert found.losses.mean().item() == pytest.approx(log_loss(labels, probabilities, labels=range(7)), rel=1e-5)
    truth = np.eye(7)[labels.numpy()]
    np.testing.assert_allclose(found.briers, ((probabilities - truth) ** 2).sum(axis=1), rtol=1e-4, atol=1e-6)
    two = scores(logits[:, :2], labels % 2)
    of_one = logits[:, :2].double().softmax(dim=1)[:, 1].numpy()  # of two classes it is twice the binary one
    assert two.briers.mean().item() == pytest.approx(2 * brier_score_loss(labels % 2, of_one), rel=1e-5)


def test_the_ends_are_exact() -> None:
    logits = torch.tensor([[0.0, 0.0], [200.0, 0.0], [200.0, 0.0]])
    found = scores(logits, torch.tensor([1, 0, 1]))
    assert found.losses.tolist() == [pytest.approx(math.log(2)), 0, 200]
    assert found.briers.tolist() == [0.5, 0, 2]
    assert found.confidences.tolist() == [0.5, 1, 1]


def test_batches_join_in_their_order() -> None:
    logits, labels = torch.randn((5, 3)), torch.tensor([0, 1, 2, 0, 1])
    whole = joined([scores(logits[:2], labels[:2]), scores(logits[2:], labels[2:])])
    assert all(torch.equal(one, other) for one, other in zip(whole, scores(logits, labels), strict=True))
