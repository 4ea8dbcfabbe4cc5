"""DeInfoReg: each term by hand, and their sum."""

import pytest
import torch
import torch.nn.functional as F

from trainer.errors import SettingError
from trainer.local_losses.deinforeg import DeInfoReg, covariance_term, variance_term
from trainer.local_losses.similarity import similarity_loss


def test_it_learns_maps_tokens_and_vectors(check_loss):
    check_loss(DeInfoReg(width=16))


def test_variance_term_by_hand():
    # Variances 18, 0 and 0.5; the last two deviations fall short of 1 by 1 and 0.293, over 3 columns and 2 rows.
    z = torch.tensor([[-3.0, 5.0, 0.5], [3.0, 5.0, -0.5]])
    assert variance_term(z).item() == pytest.approx((1 + 1 - 0.5**0.5) / 3 / 2, rel=1e-3)
    assert variance_term(z[:1]).item() == pytest.approx(1.0, rel=1e-3)


def test_covariance_term_by_hand():
    # Centered columns (-1, 1), (-2, 2), (0, 0): their covariances are 2, 0, 0, each counted twice, over 3 columns.
    z = torch.tensor([[0.0, 1.0, 7.0], [2.0, 5.0, 7.0]])
    assert covariance_term(z).item() == pytest.approx(2 * 2.0**2 / 3)


def test_loss_is_the_sum(site, packet):
    torch.manual_seed(0)
    classifier, given, features = (
        DeInfoReg(16, 2048, 0.5).classifier(site((6, 4, 4))),
        packet(),
        torch.randn(8, 6, 4, 4),
    )
    projected = classifier.project(features)
    z = projected / projected.norm(dim=1, keepdim=True)
    logits = classifier.classify(projected)
    regularity = {
        "variance": variance_term(z),
        "invariance": similarity_loss(z, torch.eye(4)[given["label"]]),
        "covariance": covariance_term(z),
    }
    entropy = F.cross_entropy(logits, given["label"])
    result = classifier.compute_loss(features, given)
    torch.testing.assert_close(result.loss, sum(regularity.values()) + 0.5 * entropy)
    torch.testing.assert_close(result.terms, {**regularity, "label": entropy})
    torch.testing.assert_close(result.logits, logits)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"width": 0}, "local_loss.width=0"),
        ({"limit": 0}, "local_loss.limit=0"),
        ({"label": -1.0}, "local_loss.label=-1"),
    ],
)
def test_wrong_settings(options, message):
    with pytest.raises(SettingError, match=message):
        DeInfoReg(**options)
