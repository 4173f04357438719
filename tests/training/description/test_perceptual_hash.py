import io

import numpy as np
import pytest
from photo_files import picture
from PIL import Image, ImageFilter

from training.description.perceptual_hash import (
    coarse_picture,
    distances,
    gray_picture,
    near_pairs,
    perceptual_hash,
    similarity,
)

pytestmark = pytest.mark.unit


def hashed(photo: Image.Image) -> int:
    return int(perceptual_hash(gray_picture(photo)))


def scene(seed: int) -> Image.Image:
    """A smooth picture, as photos are."""
    return picture((12, 8), seed).resize((480, 320), Image.Resampling.BICUBIC)


def test_bits_tell_which_low_frequencies_are_above_their_median(rng):
    scipy_fft = pytest.importorskip("scipy.fft")
    gray = rng.integers(0, 256, (32, 32), dtype=np.uint8)
    low = scipy_fft.dctn(gray.astype(float), norm=None)[:8, :8] / 4
    bits = (low > np.median(low)).ravel()
    assert int(perceptual_hash(gray)) == int("".join(str(int(bit)) for bit in bits), 2)


def test_a_photo_smaller_compressed_or_blurred_stays_near_and_others_are_far():
    photo = scene(0)
    file = io.BytesIO()
    photo.save(file, "JPEG", quality=30)
    versions = [
        photo.resize((120, 80)),
        Image.open(file),
        photo.filter(ImageFilter.GaussianBlur(2)),
        photo.point(lambda value: value * 0.8),
    ]
    first = np.array([hashed(photo)] * 4, np.uint64)
    assert distances(first, np.array([hashed(v) for v in versions], np.uint64)).max() <= 4
    others = np.array([hashed(scene(seed)) for seed in range(1, 5)], np.uint64)
    assert distances(first, others).min() > 16


@pytest.mark.parametrize("radius", [0, 1, 4, 9, 16])
def test_pairs_are_those_of_comparing_each_with_each(rng, radius):
    seeds = rng.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = np.repeat(seeds, 5)
    for row in range(len(hashes)):  # each differs from its seed in up to eight bits
        for bit in rng.integers(0, 64, (row % 7 // 2) * (1 + row % 3)):
            hashes[row] ^= np.uint64(1) << np.uint64(bit)
    expected = {
        (i, j): bin(int(hashes[i]) ^ int(hashes[j])).count("1")
        for i in range(len(hashes))
        for j in range(i + 1, len(hashes))
    }
    expected = {pair: apart for pair, apart in expected.items() if apart <= radius}
    pairs, apart = near_pairs(hashes, radius)
    assert dict(zip(map(tuple, pairs.tolist()), apart.tolist(), strict=True)) == expected
    assert len(expected) > 5


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_photos_have_no_pairs(count):
    pairs, apart = near_pairs(np.zeros(count, np.uint64), 4)
    assert pairs.shape == (0, 2) and len(apart) == 0


def test_similarity_is_the_correlation_of_the_means_of_eight_by_eight_parts(rng):
    grays = rng.integers(0, 256, (2, 32, 32), dtype=np.uint8)
    grays[:, :16] //= 4
    means = grays.reshape(2, 8, 4, 8, 4).mean(axis=(2, 4)).round().reshape(2, 64)
    coarse = np.stack([coarse_picture(gray) for gray in grays])
    np.testing.assert_array_equal(coarse, means)
    expected = np.corrcoef(means)[0, 1]
    np.testing.assert_allclose(similarity(coarse[:1], coarse[1:]), [expected], rtol=1e-12)
    flat = np.full((1, 64), 7, np.uint8)
    assert similarity(flat, flat)[0] == 1 and similarity(flat, coarse[:1])[0] == 0
