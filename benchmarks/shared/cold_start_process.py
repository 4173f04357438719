"""One process of `benchmarks.cold_start`.

`python -m benchmarks.shared.cold_start_process PART FOLDER SIZE`

Runs PART for the first time in this process and prints its times in seconds as a JSON object:

export: exports a tagger with random weights to FOLDER/model; also prints the size of its graph
head:   imports the package and builds the head of that tagger, twice
server: imports the server, serves FOLDER/model, and sends ten requests
"""

import json
import pathlib
import sys
import time
from collections.abc import Callable

from benchmarks.shared.timing import Stopwatch

BACKBONES = {"real": ("efficientnet_lite0", 224), "smallest": ("small", 32)}
HEADS = {"real": ((7, 7, 320), 1280), "smallest": ((4, 4, 128), 256)}
EMBEDDING_SIZE, CLASSES, REQUESTS = 100, 241, 10


def main() -> None:
    """Prints the times of one part."""
    part, folder, size = sys.argv[1:]
    print(json.dumps(PARTS[part](pathlib.Path(folder), size)))


def _head(folder: pathlib.Path, size: str) -> dict[str, float]:
    watch = Stopwatch()
    from biam_tf.models import build_head

    watch.lap("import")
    for name in ("build", "build again"):
        build_head(*HEADS[size], EMBEDDING_SIZE)
        watch.lap(name)
    return watch.laps


def _export(folder: pathlib.Path, size: str) -> dict[str, float]:
    import keras

    from benchmarks.shared.random_inputs import class_matrix
    from biam_tf.backbones import build_backbone
    from biam_tf.models import build_head
    from biam_tf.runs import RunPaths, TrainedRun
    from biam_tf.vocabulary import Vocabulary
    from serving.export import export
    from serving.graph.batching import Batching
    from serving.graph.signatures import GraphSettings

    keras.utils.set_random_seed(0)
    name, image_size = BACKBONES[size]
    paths = RunPaths(folder / "run")
    paths.path.mkdir()
    paths.config.write_text("{}\n")
    run = TrainedRun(
        paths,
        {
            "backbone": {"name": name, "weights": "none", "trainable": False},
            "vocabulary": {"word_vectors": None},
        },
        Vocabulary(
            [f"class {number}" for number in range(CLASSES)],
            class_matrix(CLASSES, EMBEDDING_SIZE),
            ["seen"] * CLASSES,
        ),
        build_head(*HEADS[size], EMBEDDING_SIZE),
        build_backbone(name, image_size, "none"),
    )
    watch = Stopwatch()
    settings = GraphSettings(
        batching=Batching.for_this_device(), formats=None if size == "real" else ("JPEG", "PNG")
    )
    exported = export(run, folder / "model", settings)
    watch.lap("export")
    return watch.laps | _contents(exported.path)


def _contents(version: pathlib.Path) -> dict[str, int]:
    """Returns the size of an export's graph and the number of traces of the backbone."""
    from tensorflow.core.protobuf import saved_model_pb2

    serialized = (version / "saved_model.pb").read_bytes()
    graph = saved_model_pb2.SavedModel.FromString(serialized).meta_graphs[0].graph_def
    functions = graph.library.function
    in_functions = [node for function in functions for node in function.node_def]
    # Only the backbone is wrapped in batch functions.
    batched = {node.attr["f"].func.name for node in in_functions if node.op == "BatchFunction"}
    return {
        "bytes": len(serialized),
        "functions": len(functions),
        "nodes": len(graph.node) + len(in_functions),
        "backbones": len(batched),
    }


def _server(folder: pathlib.Path, size: str) -> dict[str, float]:
    watch = Stopwatch()
    from benchmarks.shared.random_inputs import class_matrix, noise_photo
    from serving.rpc.loader import ModelVersion
    from serving.rpc.tagging_client import TaggingClient
    from serving.rpc.version_folders import newest_version
    from serving.server import ServerSettings, TaggingServer

    settings = ServerSettings(port=0, poll_seconds=0.01)
    with TaggingServer(folder / "model", settings) as server:
        watch.lap("import")
        while server.versions.current is None:
            time.sleep(0.005)
        watch.lap("start to ready")
        photo, classes = noise_photo(640, 480, 0), class_matrix(100, EMBEDDING_SIZE)
        with TaggingClient(server.address) as client:
            watch.lap("client")
            answers = []
            for number in range(1, 1 + REQUESTS):
                answers.append(client.tag(photo, class_embeddings=classes).tolist())
                watch.lap(f"request {number}")
    version = newest_version(folder / "model")
    watch.skip()
    ModelVersion(version)
    watch.lap("load again")
    return watch.laps | {"answers differ": sum(answer != answers[0] for answer in answers)}


PARTS: dict[str, Callable] = {"export": _export, "head": _head, "server": _server}

if __name__ == "__main__":
    main()
