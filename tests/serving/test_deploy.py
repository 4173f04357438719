"""Images, manifests and configurations, read by what they are written for."""

import copy
import importlib
import json
import pathlib
import re
import subprocess
import sys
import types

import grpc
import pytest
import yaml
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


def documents(path: pathlib.Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", ["server.yaml", "tensorflow-serving.yaml"])
def test_manifests_follow_kubernetes_schemas(file):
    validator = pytest.importorskip("kubernetes_validate", reason="extra [test]")
    for manifest in documents(DEPLOY / "kubernetes" / file):
        validator.validate(manifest, "1.30", strict=True)
        broken = copy.deepcopy(manifest)
        broken["spec"]["replica"] = 2
        with pytest.raises(validator.ValidationError):
            validator.validate(broken, "1.30", strict=True)


@pytest.mark.integration
def test_the_compose_file_follows_its_schema():
    pytest.importorskip("check_jsonschema", reason="extra [test]")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, DEPLOY / "compose.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def commands() -> list[list[str]]:
    """Returns the arguments of `biam` in images, compose file and manifests."""
    images = re.findall(r"^CMD (\[.*\])$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    services = documents(DEPLOY / "compose.yaml")[0]["services"].values()
    composed = [s["command"] for s in services if s.get("image") == "biam" and "command" in s]
    deployment = documents(DEPLOY / "kubernetes/server.yaml")[0]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return [*map(json.loads, images), *composed, container["args"]]


def test_containers_start_commands_with_options_that_exist(monkeypatch):
    from biam_tf.__main__ import COMMANDS

    assert [command[0] for command in commands()] == ["serve", "demo", "serve"]
    for name, *arguments in commands():
        module = importlib.import_module(COMMANDS[name])
        parsed = []

        def parse(parser, command, argv, parsed=parsed):
            parsed.append(parser.parse_args(argv))
            return 0

        monkeypatch.setattr(module, "run_command", parse)
        assert module.main(arguments) == 0
        assert str(parsed[0].model_dir) == "/models/tagger" and parsed[0].host == "0.0.0.0"


def test_probes_ask_what_the_server_answers():
    (container,) = documents(DEPLOY / "kubernetes/server.yaml")[0]["spec"]["template"]["spec"][
        "containers"
    ]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"grpc": 8500, "http": 8501}
    probes = [container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")]
    assert [probe["path"] for probe in probes] == ["/readyz", "/readyz", "/healthz"]
    assert {probe["port"] for probe in probes} == {"http"}


def test_dashboard_and_alerts_use_metrics_that_exist():
    from serving.rpc.metrics_page import Metrics

    page = Metrics()
    samples = {
        sample.name
        for metric in page._registry.collect()
        for sample in [*metric.samples, *_possible(metric)]
    }
    text = (DEPLOY / "monitoring/dashboard.json").read_text()
    assert json.loads(text)["panels"]
    text += (DEPLOY / "monitoring/alerts.yml").read_text()
    used = set(re.findall(r"\bbiam_\w+", text))
    assert len(used) >= 6 and used <= samples
    codes = re.findall(r'code=~\\?"([A-Z_|]+)', text)
    assert {code for group in codes for code in group.split("|")} <= {
        code.name for code in grpc.StatusCode
    }


def _possible(metric):
    # A metric with labels has no sample before its first request.
    endings = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return [
        types.SimpleNamespace(name=metric.name + ending)
        for ending in endings.get(metric.type, [""])
    ]
