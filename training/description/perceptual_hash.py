"""A perceptual hash: 64 bits that hardly change when a photo is resized or compressed again.

The bits tell which of the 8 x 8 lowest frequencies (a discrete cosine transform of the photo as 32
x 32 shades of gray) lie above their median: the coarse layout of light and dark. Photos whose
hashes differ in few bits are nearly always versions of one photo, or photos of one scene taken one
after the other; but a bear in the middle of snow and a plane in the middle of the sky may differ as
little. Comparing the photos as 8 x 8 shades of gray tells these apart.
"""

import itertools

import numpy as np
from PIL import Image

SIDE, FREQUENCIES = 32, 8
BITS = FREQUENCIES**2


def gray_picture(photo: Image.Image) -> np.ndarray:
    """Returns a photo as (32, 32) shades of gray, uint8."""
    gray = photo.convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    return np.asarray(gray)


def perceptual_hash(gray: np.ndarray) -> np.uint64:
    """Returns the hash of a picture (32, 32)."""
    frequencies = _COSINES @ gray.astype(np.float64) @ _COSINES.T  # (8, 8)
    bits = (frequencies > np.median(frequencies)).ravel()
    return np.packbits(bits).view(">u8")[0].astype(np.uint64)


def coarse_picture(gray: np.ndarray) -> np.ndarray:
    """Returns a picture (32, 32) as (64,) shades of gray, uint8: the means of its 8 x 8 parts."""
    parts = gray.reshape(FREQUENCIES, SIDE // FREQUENCIES, FREQUENCIES, SIDE // FREQUENCIES)
    return parts.mean(axis=(1, 3)).round().astype(np.uint8).ravel()


def similarity(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the correlations, (N,) of -1 to 1, of pairs of coarse pictures (N, 64).

    The correlation of two uniform pictures is 1, that of a uniform one with any other 0.
    """
    one, other = (own - own.mean(axis=1, keepdims=True, dtype=np.float64) for own in (one, other))
    lengths = np.linalg.norm(one, axis=1), np.linalg.norm(other, axis=1)
    product = lengths[0] * lengths[1]
    flat = ((lengths[0] == 0) & (lengths[1] == 0)).astype(np.float64)
    return np.divide((one * other).sum(axis=1), product, out=flat, where=product > 0)


def near_pairs(hashes: np.ndarray, radius: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds all pairs of hashes that differ in at most `radius` bits.

    If 64 bits are cut into `radius` + 1 parts, two such hashes have at least one part in common;
    only those that do are compared. The time grows with the square of the number of hashes divided
    by 2 to the power of a part's length: seconds for 100,000 at radius 10, or a million at
    radius 4.

    Args:
        hashes: (N,) uint64.
        radius: bits, 0 to 32.

    Returns:
        (P, 2) pairs of indices, ascending, the smaller one first, and (P,) their distances.
    """
    if not 0 <= radius <= BITS // 2:
        raise ValueError(f"radius: expected 0 to {BITS // 2}, got {radius}")
    cuts = np.linspace(0, BITS, radius + 2).astype(int)
    found = [np.zeros(0, np.int64)]
    for low, high in itertools.pairwise(cuts):
        mask = np.uint64((1 << int(high - low)) - 1)
        part = (hashes >> np.uint64(low)) & mask
        order = np.argsort(part, kind="stable")
        part = part[order]
        first, step = np.arange(len(part)), 1
        while True:
            # Those whose `step`-th successor is still equal.
            first = first[first + step < len(part)]
            first = first[part[first] == part[first + step]]
            if not len(first):
                break
            one, other = order[first], order[first + step]
            near = distances(hashes[one], hashes[other]) <= radius
            one, other = one[near], other[near]
            found.append(np.minimum(one, other) * len(hashes) + np.maximum(one, other))
            step += 1
    codes = np.unique(np.concatenate(found))
    pairs = np.stack([codes // max(1, len(hashes)), codes % max(1, len(hashes))], axis=1)
    return pairs, distances(hashes[pairs[:, 0]], hashes[pairs[:, 1]])


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the number of bits in which pairs of (N,) uint64 hashes differ, (N,) int64."""
    different = np.ascontiguousarray(one ^ other).view(np.uint8).reshape(-1, BITS // 8)
    return np.unpackbits(different, axis=1).sum(axis=1, dtype=np.int64)


def _cosines() -> np.ndarray:
    """The first rows of the matrix of the discrete cosine transform (type 2), (8, 32)."""
    rows, columns = np.arange(FREQUENCIES)[:, None], np.arange(SIDE)
    return np.cos(np.pi * rows * (2 * columns + 1) / (2 * SIDE))


_COSINES = _cosines()
