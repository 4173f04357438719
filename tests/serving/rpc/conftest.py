"""Photos for the tests of clients."""

import pytest
from photo_files import encoded


@pytest.fixture
def photos(tmp_path):
    """Three files, each of another length and so of another score."""
    paths = []
    for seed, size in enumerate([(60, 40), (30, 50), (44, 44)]):
        path = tmp_path / f"photo {seed}.png"
        path.write_bytes(encoded("PNG", size, seed))
        paths.append(path)
    return paths
