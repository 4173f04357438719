"""A server under load: `python -m benchmarks.serving RUN`.

Exports a run, serves it with the embedded server in this process, and sends requests from another
process, so that clients and server share no interpreter. Measures in turns and prints:

1. 16 clients with different class lists and photos of different sizes, with and without batching:
   photos per second, latency, photos per call of the backbone, and the largest difference between
   the answer of a request under load and alone;
2. the same with a fixed cost per call of the backbone, as on an accelerator: 13 GFLOP of matrix
   products, whatever the number of photos;
3. one client: the overhead of the server over a direct call of the SavedModel, batch size 1;
4. 1,000 stored photos scored with 1,000 classes, compared with full requests: for the run, and for
   the paper's backbone, VGG19 with 14x14 regions and random weights.

The photos are noise.
"""

import argparse
import dataclasses
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence

import numpy as np

from benchmarks.shared.random_inputs import class_matrix, noise_photo
from benchmarks.shared.serving_clients import (
    CLIENTS,
    client_process,
    make_requests,
    median_seconds,
    seconds_of_request,
    seconds_of_rescoring,
    send_concurrently,
    send_first_alone,
)
from biam_tf.command_line import run_command

PARTS = ("clients", "overhead", "rescore", "rescore-vgg19")
COUNTERS = "benchmark_counters"
FIXED_PRODUCTS = 6  # of 1024 x 1024 matrices, 13 GFLOP


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.serving",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", metavar="RUN", help="folder of a trained run")
    parser.add_argument(
        "--rounds", type=int, default=5, help="rounds of each measurement (default: 5)"
    )
    parser.add_argument(
        "--requests", type=int, default=6, help="requests per client and round (default: 6)"
    )
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="what to measure (default: all)"
    )
    return run_command(parser, _measure, argv)


def _measure(arguments: argparse.Namespace) -> None:
    from biam_tf.runs import load_run

    run = load_run(arguments.run)
    with tempfile.TemporaryDirectory() as folder:
        measure = _Measurement(run, pathlib.Path(folder), arguments.rounds, arguments.requests)
        if "clients" in arguments.parts:
            measure.clients("unchanged backbone", run)
            measure.clients("fixed cost per call", measure.with_fixed_cost())
        if "overhead" in arguments.parts:
            measure.overhead()
        if "rescore" in arguments.parts:
            measure.rescore("backbone and head of the run", run)
        if "rescore-vgg19" in arguments.parts:
            measure.rescore("VGG19 and the released head", measure.with_backbone_of_the_paper())


class _Measurement:
    """Measures one run, with `rounds` of each measurement and `requests` per client and round."""

    def __init__(self, run, folder: pathlib.Path, rounds: int, requests: int):
        self._run, self._folder = run, folder
        self._rounds, self._requests = rounds, requests
        self._exports = 0

    def with_fixed_cost(self):
        """Returns the run with a backbone that has a fixed cost per call."""
        return dataclasses.replace(self._run, backbone=_FixedCost(self._run.backbone))

    def clients(self, title: str, run) -> None:
        """Prints speed, latency and differences of 16 clients, with and without batching."""
        from serving.graph.batching import Batching

        requests = make_requests(run.vocabulary.embedding_size, self._requests)
        models = {
            "on": self._export(run, Batching.for_this_device()),
            "off": self._export(run, None),
        }
        rounds = {name: [] for name in models}
        sizes, differences = {}, {name: 0.0 for name in models}
        with _Servers(models) as servers, client_process() as ask:
            for _ in range(self._rounds):
                for name, server in servers.items():
                    before = _counters(server)
                    rounds[name].append(ask(send_concurrently, server.address, requests))
                    calls, photos = (_counters(server) - before).tolist()
                    sizes.setdefault(name, []).append(photos / calls)
                    alone = ask(send_first_alone, server.address, requests)
                    pairs = zip(rounds[name][-1].first_answers, alone, strict=True)
                    largest = max(np.abs(a - b).max() for a, b in pairs)
                    differences[name] = max(differences[name], float(largest))
        print(f"\n16 clients with different class lists; {title}")
        print("batching   photos/s  median s  95 % s  photos/call  difference from alone")
        for name, loads in rounds.items():
            seconds = [second for load in loads for second in load.seconds]
            print(
                f"{name:10}{_spread([load.photos_per_second for load in loads])}"
                f"{statistics.median(seconds):9.3f}{np.quantile(seconds, 0.95):8.3f}"
                f"{statistics.median(sizes[name]):13.1f}"
                f"{differences[name]:23.1e}"
            )
        ratios = [
            on.photos_per_second / off.photos_per_second
            for on, off in zip(rounds["on"], rounds["off"], strict=True)
        ]
        print(f"on / off: {_spread(ratios, 2)} times the photos/s")

    def overhead(self) -> None:
        """Prints the overhead of the server over a direct call of the SavedModel with one photo."""
        import tensorflow as tf

        from serving.graph.batching import Batching

        model_dir = self._export(self._run, Batching.for_this_device())
        photo, classes = (
            noise_photo(640, 480, 0),
            class_matrix(100, self._run.vocabulary.embedding_size),
        )
        rounds = []
        loaded = tf.saved_model.load(model_dir / "1")
        signature = loaded.signatures["serving_default"]
        with _Servers({"it": model_dir}) as servers, client_process() as ask:
            for _ in range(2 * self._rounds):
                over_grpc = ask(seconds_of_request, servers["it"].address, photo, classes)
                rounds.append((over_grpc, _bare(signature, photo, classes)))
        ratios = [over / bare for over, bare in rounds]
        bare = statistics.median(bare for _, bare in rounds)
        print(f"\none client, one photo of 640x480, 100 classes: {1000 * bare:.1f} ms direct")
        print(f"server / direct call: {_spread(ratios, 2)}")

    def with_backbone_of_the_paper(self):
        """Returns the run with VGG19 at 224 pixels and the released head, with random weights."""
        from biam_tf.backbones import build_backbone
        from biam_tf.models import build_head

        backbone = build_backbone("vgg19", 224, "none", trainable=False)
        shapes = {name: output.shape for name, output in backbone.output.items()}
        head = build_head(
            shapes["region_features"][1:],
            shapes["scene_feature"][-1],
            self._run.vocabulary.embedding_size,
            preset="released",
        )
        return dataclasses.replace(self._run, backbone=backbone, head=head)

    def rescore(self, title: str, run) -> None:
        """Prints the times to score photos and stored features."""
        from serving.graph.batching import Batching

        model_dir = self._export(run, Batching.for_this_device())
        photos = [noise_photo(640, 480, seed) for seed in range(20)]
        classes = class_matrix(1000, run.vocabulary.embedding_size)
        with _Servers({"it": model_dir}) as servers, client_process() as ask:
            rounds = [
                ask(seconds_of_rescoring, servers["it"].address, photos, classes)
                for _ in range(self._rounds)
            ]
        full = statistics.median(full for full, _ in rounds)
        rescored = statistics.median(rescored for _, rescored in rounds)
        print(f"\n1,000 photos of 640x480, 1,000 classes, through the server; {title}")
        print(f"full requests {full:.2f} s, rescore {rescored:.2f} s")
        print(f"full / rescore: {_spread([full / rescored for full, rescored in rounds], 1)}")

    def _export(self, run, batching) -> pathlib.Path:
        from serving.export import export
        from serving.graph.signatures import GraphSettings

        self._exports += 1
        model_dir = self._folder / str(self._exports)
        backbone = run.backbone if isinstance(run.backbone, _Counted) else _Counted(run.backbone)
        run = dataclasses.replace(run, backbone=backbone)
        export(run, model_dir, GraphSettings(batching=batching))
        return model_dir


class _Counted:
    """A backbone that counts its calls and photos in a variable of the model."""

    def __init__(self, backbone):
        import keras

        self._backbone = backbone
        self.output, self.input_shape = backbone.output, backbone.input_shape
        self.layers = backbone.layers
        self.counters = keras.Variable(np.zeros(2), dtype="int64", trainable=False, name=COUNTERS)
        self.variables = [self.counters, *backbone.variables]

    def __call__(self, photos, training):
        import tensorflow as tf

        counted = self.counters.value.assign_add(tf.stack([1, tf.shape(photos, tf.int64)[0]]))
        with tf.control_dependencies([counted]):
            return self._backbone(self.wait(tf.identity(photos)), training=training)

    def wait(self, photos):
        """Returns the photos; subclasses add a cost."""
        return photos


class _FixedCost(_Counted):
    """A counted backbone with a fixed cost per call, whatever the number of photos."""

    def __init__(self, backbone):
        import keras

        super().__init__(backbone)
        matrix = np.random.default_rng(0).normal(size=(1024, 1024)) / 32
        self._matrix = keras.Variable(matrix, dtype="float32", trainable=False)
        self.variables = [*self.variables, self._matrix]

    def wait(self, photos):
        """Multiplies matrices and returns the photos."""
        import tensorflow as tf

        # Depends on the photos, so that every call computes it.
        product = self._matrix.value + 0.0 * photos[0, 0, 0, 0]
        for _ in range(FIXED_PRODUCTS):
            product = tf.matmul(product, self._matrix.value)
        return photos + 0.0 * product[0, 0]


class _Servers:
    """A context manager of servers, one per model, loaded and warmed up."""

    def __init__(self, models: dict[str, pathlib.Path]):
        from serving.server import ServerSettings, TaggingServer

        settings = ServerSettings(port=0, threads=CLIENTS)
        self._servers = {name: TaggingServer(path, settings) for name, path in models.items()}

    def __enter__(self) -> dict:
        for server in self._servers.values():
            server.start()
        while any(server.versions.current is None for server in self._servers.values()):
            time.sleep(0.1)
        return self._servers

    def __exit__(self, *_) -> None:
        for server in self._servers.values():
            server.stop()


def _counters(server) -> np.ndarray:
    """Returns the numbers of calls and photos of the backbone of a server's model so far."""
    import tensorflow as tf

    session = server.versions.current._session
    with session.graph.as_default():
        handle = session.graph.get_operation_by_name(COUNTERS).outputs[0]
        return session.run(tf.raw_ops.ReadVariableOp(resource=handle, dtype=tf.int64))


def _bare(signature, photo: bytes, classes: np.ndarray) -> float:
    """Returns the median seconds of the same call without a server."""
    import tensorflow as tf

    def call():
        inputs = {"images": tf.constant([photo]), "class_embeddings": tf.constant(classes)}
        return signature(**inputs)["scores"].numpy()

    return median_seconds(call)


def _spread(values, digits: int = 1) -> str:
    """Returns the median and the range as text."""
    low, high = min(values), max(values)
    return f"{statistics.median(values):.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


if __name__ == "__main__":
    sys.exit(main())
