import numpy as np
import pytest

from training.config import DataConfig
from training.data.input.sampling import Balanced, Capped, Natural, make_sampler

pytestmark = pytest.mark.unit

EPOCHS = 5


@pytest.fixture
def labels(rng):
    """200 photos of 6 classes, each rarer than the one before; every photo shows one or two."""
    labels = np.full((200, 6), -1, np.int8)
    shares = np.array([0.6, 0.25, 0.08, 0.04, 0.02, 0.01])
    labels[np.arange(200), rng.choice(6, 200, p=shares)] = 1
    labels[::3, 0] = 1
    labels[:6, 5] = 1
    return labels


def photos_of_classes(labels, counts):
    return counts @ (labels > 0)


@pytest.mark.parametrize("kind", ["balanced", "capped"])
def test_an_epoch_depends_on_seed_and_number_alone_and_all_are_of_one_length(kind, labels):
    config = DataConfig(sampling=kind, max_images_per_class=20 if kind == "capped" else None)
    first, again = (make_sampler(config, labels, 3, EPOCHS) for _ in range(2))
    epochs = [first.counts(3, epoch) for epoch in range(EPOCHS)]
    np.testing.assert_array_equal(again.counts(3, 4), epochs[4])
    assert [counts.sum() for counts in epochs] == [first.epoch_size] * EPOCHS
    assert len({counts.tobytes() for counts in epochs}) == EPOCHS


def test_natural_sampling_takes_every_photo_once():
    np.testing.assert_array_equal(Natural(4).counts(0, 0), [1, 1, 1, 1])
    assert isinstance(make_sampler(DataConfig(), np.ones((3, 1)), 0, 1), Natural)


def test_a_photo_comes_by_the_inverse_frequency_of_its_rarest_class():
    # Class 0 has four photos, class 1 has two and class 2 has one, which shows class 0 as well.
    labels = np.array([[1, -1, 0], [1, -1, 0], [1, -1, 0], [1, -1, 1], [-1, 1, 0], [-1, 1, 0]])
    weights = np.array([1 / 4, 1 / 4, 1 / 4, 1, 1 / 2, 1 / 2])
    sampler = Balanced(labels.astype(np.int8))
    np.testing.assert_allclose(sampler.expected, 6 * weights / weights.sum())
    epochs = np.stack([sampler.counts(0, epoch) for epoch in range(2000)])
    assert (epochs.sum(axis=1) == 6).all()
    assert (np.abs(epochs - sampler.expected) < 1).all()  # rounded down or up, never further
    np.testing.assert_allclose(epochs.mean(axis=0), sampler.expected, atol=0.05)


def test_balancing_brings_rare_classes_up(labels):
    natural = photos_of_classes(labels, np.ones(200, int))
    balanced = photos_of_classes(labels, Balanced(labels).counts(0, 0))
    assert balanced[5] > 3 * natural[5] and balanced[0] < natural[0]


@pytest.mark.parametrize("most", [1, 7, 30])
def test_no_class_has_more_photos_than_the_cap_in_any_epoch(most, labels):
    sampler = Capped(labels, most, seed=1, epochs=EPOCHS)
    for epoch in range(EPOCHS):
        counts = sampler.counts(1, epoch)
        assert counts.max() == 1 and (photos_of_classes(labels, counts) <= most).all()


def test_rare_classes_are_served_before_frequent_ones_are_full(labels):
    # Each photo of the rarest class also shows a frequent one, which alone has 120 photos more.
    both = np.full((130, 2), -1, np.int8)
    both[:, 0] = 1
    both[:10, 1] = 1
    sampler = Capped(both, 20, seed=0, epochs=1)
    counts = sampler.counts(0, 0)
    assert counts[:10].all() and counts.sum() == 20


def test_a_cap_that_no_class_reaches_leaves_all_photos_in(labels):
    sampler = Capped(labels, 200, seed=0, epochs=2)
    assert sampler.epoch_size == 200 and sampler.counts(0, 1).all()
