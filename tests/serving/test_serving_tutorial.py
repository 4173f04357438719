"""docs/tutorials/serve_and_monitor.md, against a server of this process."""

import shutil

import numpy as np
import pytest
from tiny_server import ready, started
from tutorial_pages import follow

from biam_tf import Tagger

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_serve_and_monitor(cold_dir, finished, scenes, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(next((scenes / "images").iterdir()), "photo.png")
    tagger = Tagger.load(finished.path)
    first, second = tagger.vocabulary.names[:2]
    server = ready(started(cold_dir, metrics_port=0))
    try:
        names, _ = follow(
            "serve_and_monitor.md",
            {
                "localhost:8500": server.address,
                "localhost:8501": f"localhost:{server.metrics_port}",
                '"dog", "beach"': f'"{first}", "{second}"',
            },
        )
    finally:
        server.stop()
    expected = tagger.scores("photo.png", [first, second])
    for scores in (names["scores"], names["answer"].scores, names["rest"]["scores"]):
        np.testing.assert_allclose(np.reshape(scores, (1, 2)), expected, atol=1e-4)
    assert "biam_requests_total{" in names["metrics"] and 'code="OK"' in names["metrics"]
