"""The configuration files for TensorFlow Serving, read by its own messages."""

import pathlib

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import serving

pytestmark = pytest.mark.unit

DEPLOY = pathlib.Path(serving.__file__).parent / "deploy"


def test_the_model_has_the_name_that_clients_use():
    text = (DEPLOY / "models.config").read_text()
    server = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    (model,) = server.model_config_list.config
    assert model.name == serving.DEFAULT_MODEL_NAME
    assert model.base_path == "/models/tagger" and model.model_platform == "tensorflow"
    assert model.model_version_policy.latest.num_versions == 1
    # The canary in its comments, too.
    canary = text.replace("# model_version", "model_version").replace("# version_", "version_")
    canary = canary.replace("model_version_policy { latest { num_versions: 1 } }", "")
    server = text_format.Parse(canary, model_server_config_pb2.ModelServerConfig())
    assert server.model_config_list.config[0].version_labels == {"stable": 1, "canary": 2}
