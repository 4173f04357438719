"""A served model for the parts of the page."""

import pytest
from tiny_server import ready, started

from serving.demo_page.served_model import ServedModel, connect


@pytest.fixture(scope="module")
def served(tagger_dir):
    server = ready(started(tagger_dir))
    with connect(server.address) as client:
        yield ServedModel(tagger_dir, server.address, client, server)
    server.stop()
