"""PredSim: similarity matching by hand and against a few-line reference, and the pooling of its linear classifier."""

import pytest
import torch
import torch.nn.functional as F

from trainer.errors import SettingError
from trainer.local_losses.pooling import flat_pool
from trainer.local_losses.contrast import supervised_contrast
from trainer.local_losses.deinforeg import covariance_term
from trainer.local_losses.predsim import PredSim, spread
from trainer.local_losses.similarity import similarity, similarity_loss


def test_it_learns_maps_tokens_and_vectors(check_loss):
    check_loss(PredSim())


@pytest.mark.parametrize(
    "loss", [similarity, covariance_term, lambda x: supervised_contrast(x, torch.eye(2)[torch.arange(16) % 2])]
)
def test_products_of_samples_keep_their_precision_under_autocast(loss):
    x = torch.randn(16, 24)
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(x)
    assert torch.equal(found, loss(x))


def test_similarity_by_hand():
    # Centered: (-1, 0, 1), (1, 0, -1), (-1, 2, -1); the third stands at right angles to the others.
    x = torch.tensor([[0.0, 1.0, 2.0], [5.0, 4.0, 3.0], [0.0, 3.0, 0.0]])
    torch.testing.assert_close(similarity(x), torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]))


def test_similarity_loss_by_hand():
    # One-hot labels of two classes are centered to (+-1/2, -+1/2): 1 within a class, -1 between.
    x = torch.tensor([[0.0, 1.0, 2.0], [5.0, 4.0, 3.0]])
    assert similarity_loss(x, F.one_hot(torch.tensor([0, 1])).float()).item() == pytest.approx(0.0, abs=1e-12)
    assert similarity_loss(x, F.one_hot(torch.tensor([0, 0]), 2).float()).item() == pytest.approx(2.0)


def test_constant_features_have_a_finite_gradient():
    x = torch.ones(3, 4, requires_grad=True)
    similarity_loss(x, torch.eye(3)).backward()
    assert x.grad.isfinite().all()
    maps = torch.ones(3, 4, 2, 2, requires_grad=True)
    similarity_loss(spread(maps), torch.eye(3)).backward()
    assert maps.grad.isfinite().all()


def test_spread_is_the_deviation_over_places():
    x = torch.tensor([[[1.0, 10.0], [3.0, 10.0]]])  # two tokens of two channels
    torch.testing.assert_close(spread(x), torch.tensor([[2**0.5, 0.0]]))
    torch.testing.assert_close(spread(x.transpose(1, 2).reshape(1, 2, 1, 2)), torch.tensor([[2**0.5, 0.0]]))
    assert torch.equal(spread(x[:, 0]), x[:, 0])


def test_loss_against_a_reference(site, packet):
    torch.manual_seed(0)
    classifier, given, features = PredSim(0.7).classifier(site((6, 4, 4))), packet(), torch.randn(8, 6, 4, 4)
    torch.nn.init.normal_(classifier.predict.weight)
    maps = F.conv2d(features, classifier.match.weight, padding=1).detach().numpy()
    deviation = torch.tensor(maps.reshape(8, 6, 16).std(axis=2, ddof=1))
    wanted, found = (torch.corrcoef(rows) for rows in (torch.eye(4)[given["label"]], deviation))
    logits = features.flatten(1) @ classifier.predict.weight.T + classifier.predict.bias
    terms = {"prediction": F.cross_entropy(logits, given["label"]), "similarity": (wanted - found).square().mean()}
    result = classifier.compute_loss(features, given)
    torch.testing.assert_close(result.loss, 0.3 * terms["prediction"] + 0.7 * terms["similarity"])
    torch.testing.assert_close(result.terms, terms)


def test_linear_classifier_starts_at_0(site):
    assert PredSim().classifier(site((6, 4, 4))).predict.weight.abs().sum() == 0


@pytest.mark.parametrize(
    "features, limit, size",
    [((16, 32, 32), 2048, 16 * 8 * 16), ((64, 8, 8), 2048, 64 * 4 * 8), ((4096, 3, 3), 2048, 4096), ((6, 4, 4), 96, 96),
     ((64, 192), 2048, 8 * 192), ((65, 192), 2048, 9 * 192), ((5000,), 2048, 5000)],
)  # fmt: skip
def test_pooling_halves_until_few_enough_are_left(features, limit, size):
    pool, found = flat_pool(features, limit)
    assert pool(torch.randn(2, *features)).shape == (2, found)
    assert found == size


@pytest.mark.parametrize("arguments, message", [((1.5,), "beta=1.5 must lie between 0 and 1"), ((0.5, 0), "limit=0")])
def test_wrong_settings(arguments, message):
    with pytest.raises(SettingError, match=message):
        PredSim(*arguments)


def test_features_that_no_head_is_known_for(site):
    from trainer.local_losses.base import Site

    place = Site("cut", 0, 1, (2, 3, 4, 5), 4, (3, 8, 8), (3, 8, 8), ())
    with pytest.raises(SettingError, match=r"no head for features of shape \(2, 3, 4, 5\); cut where they are maps"):
        PredSim().classifier(place)
