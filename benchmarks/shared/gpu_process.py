"""The child process of `benchmarks.gpu`: measures one side, prints one line of JSON."""

import argparse
import functools
import json
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks.shared.compared_heads import EMBEDDING, REGIONS, SCENE, make_arrays

SMALL = {"channels": 32, "fused_channels": 64}
SECONDS = 2.0  # of repetitions for one figure
NO_GPU = "sees no GPU; --smoke runs on the CPU"


class Unusable(Exception):
    """A side that this machine cannot run."""


def seconds_of(run: Callable[[], Any], wait: Callable[[Any], Any], seconds: float) -> float:
    """Returns the seconds of one call, of as many as fit into `seconds`, two at least.

    Args:
        run: starts the work and returns its result.
        wait: waits for a result.
        seconds: of all calls together.
    """
    wait(run())
    wait(run())
    calls = 2
    while True:
        started = time.perf_counter()
        results = [run() for _ in range(calls)]
        wait(results[-1])
        taken = time.perf_counter() - started
        if taken >= seconds or calls >= 1000:
            return taken / calls
        calls = min(1000, max(2 * calls, int(calls * seconds / max(taken, 1e-9))))


def measure_ours(arguments: argparse.Namespace, arrays: dict) -> dict:
    """Times of this project's head on JAX, and the operations and bytes that XLA counts."""
    try:
        import jax
    except ImportError as error:
        raise Unusable('jax is not installed; pip install "jax[cuda12]"') from error
    import keras

    device = jax.devices()[0]
    if device.platform == "cpu" and not arguments.smoke:
        raise Unusable(f"jax {NO_GPU}")

    from biam_tf.losses import RankingLoss
    from biam_tf.models.head import bind_vocabulary, build_head, scores_alone

    keras.utils.set_random_seed(0)
    half = arguments.precision == "bfloat16"
    jax.config.update("jax_default_matmul_precision", "bfloat16" if half else "tensorfloat32")
    keras.config.set_dtype_policy("mixed_bfloat16" if half else "float32")
    head = build_head(REGIONS, SCENE, EMBEDDING, "released", **_sizes(arguments))
    model = bind_vocabulary(scores_alone(head), arrays["class_embeddings"])
    optimizer = keras.optimizers.Adam(1e-3, beta_1=0.5)
    optimizer.build(model.trainable_variables)
    loss_of = RankingLoss(reduction="mean_of_violations")
    inputs = [jax.device_put(arrays[n], device) for n in ("region_features", "scene_feature")]
    labels = jax.device_put(arrays["labels"], device)
    state = tuple(
        [variable.value for variable in variables]
        for variables in (
            model.trainable_variables,
            model.non_trainable_variables,
            optimizer.variables,
        )
    )

    def forward(trained, others, inputs):
        return model.stateless_call(trained, others, inputs, training=False)[0]

    def loss(trained, others, inputs, labels):
        scores, others = model.stateless_call(trained, others, inputs, training=True)
        return loss_of(labels, scores), others

    def step(state, inputs, labels):
        trained, others, moments = state
        gradient_of = jax.value_and_grad(loss, has_aux=True)
        (value, others), gradients = gradient_of(trained, others, inputs, labels)
        trained, moments = optimizer.stateless_apply(moments, gradients, trained)
        return value, (trained, others, moments)

    compiled = {
        "forward": jax.jit(forward).lower(*state[:2], inputs).compile(),
        "step": jax.jit(step).lower(state, inputs, labels).compile(),
    }
    scores = jax.device_put(compiled["forward"](*state[:2], inputs), device)
    ranked = jax.jit(jax.value_and_grad(lambda scores: loss_of(labels, scores)))
    found: dict = {"device": device.device_kind}
    for what, call in compiled.items():
        counted = call.cost_analysis()
        counted = counted[0] if isinstance(counted, list) else counted
        found[f"{what} operations"] = counted["flops"]
        found[f"{what} bytes"] = counted["bytes accessed"]
    current = [state]

    def next_step():
        value, current[0] = compiled["step"](current[0], inputs, labels)
        return value

    timed = functools.partial(
        seconds_of, wait=jax.block_until_ready, seconds=0.1 if arguments.smoke else SECONDS
    )
    found["forward"] = timed(lambda: compiled["forward"](*state[:2], inputs))
    found["loss"] = timed(lambda: ranked(scores))
    found["step"] = timed(next_step)
    size = 256 if arguments.smoke else 8192
    matrix = jax.numpy.ones((size, size), "bfloat16" if half else "float32")
    product, copy = jax.jit(lambda x: x @ x), jax.jit(lambda x: x + 1)
    found["operations per second"] = 2 * size**3 / timed(lambda: product(matrix))
    large = jax.numpy.ones((1 << 20 if arguments.smoke else 1 << 28,), "float32")
    found["bytes per second"] = 2 * large.nbytes / timed(lambda: copy(large))
    return found


def measure_released(arguments: argparse.Namespace, arrays: dict) -> dict:
    """Times of the released method in PyTorch."""
    try:
        import torch
    except ImportError as error:
        raise Unusable("PyTorch is not installed; pip install torch") from error
    if not torch.cuda.is_available() and not arguments.smoke:
        raise Unusable(f"PyTorch {NO_GPU}")

    from benchmarks.shared.torch_rival import TorchBiAM, pairwise_loss

    torch.manual_seed(0)
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    model = TorchBiAM(**_sizes(arguments)).to(kind)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.5, 0.999))
    regions = arrays["region_features"].transpose(0, 3, 1, 2).copy()
    rest = (arrays["scene_feature"], arrays["class_embeddings"], arrays["labels"])
    *inputs, labels = (torch.from_numpy(array).to(kind) for array in (regions, *rest))
    half = arguments.precision == "bfloat16"

    def scores_of(training: bool):
        with torch.autocast(kind, torch.bfloat16, enabled=half):
            return model.train(training)(*inputs).float()

    def forward():
        with torch.no_grad():
            return scores_of(training=False)

    def step():
        optimizer.zero_grad()
        pairwise_loss(scores_of(training=True), labels).backward()
        optimizer.step()

    scores = forward()

    def loss():
        own = scores.clone().requires_grad_()
        pairwise_loss(own, labels).backward()

    def wait(result: Any) -> None:
        if kind == "cuda":
            torch.cuda.synchronize()

    name = torch.cuda.get_device_name() if kind == "cuda" else "cpu"
    found: dict = {"device": name}
    seconds = 0.1 if arguments.smoke else SECONDS
    for what, run in (("forward", forward), ("loss", loss), ("step", step)):
        found[what] = seconds_of(run, wait, seconds)
    return found


def measure_trainer(arguments: argparse.Namespace, arrays: dict) -> dict:
    """Speed, waits and memory of an epoch of `training.loop.trainer` on random features."""
    import dataclasses

    import keras
    import tensorflow as tf

    from biam_tf.models import bind_vocabulary, build_head
    from biam_tf.models.head import scores_alone
    from biam_tf.ways_to_compute import Plan, planned
    from training.config import RunConfig, TrainingConfig
    from training.loop.devices import best_precision, computing_in, make_strategy
    from training.loop.objective import Objective
    from training.loop.trainer import TrainTarget, train
    from training.machine import peak_memory
    from training.pipeline.run_folder import RunFolder

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus and not arguments.smoke:
        raise Unusable(f"TensorFlow {NO_GPU}")
    photos, classes = arrays["labels"].shape
    steps = 2 if arguments.smoke else 60
    precision = "float32" if arguments.smoke else best_precision()
    settings = TrainingConfig(epochs=2, batch_size=photos, precision=precision)
    config = RunConfig(training=settings, strategy=arguments.strategy)
    strategy = make_strategy(config)
    keras.utils.set_random_seed(0)
    plan = Plan(photos // strategy.num_replicas_in_sync, classes)
    with strategy.scope(), computing_in(precision), planned(plan):
        head = build_head(REGIONS, SCENE, EMBEDDING, "released", **_sizes(arguments))
        model = bind_vocabulary(scores_alone(head), arrays["class_embeddings"])

    @dataclasses.dataclass
    class Source:
        def __len__(self) -> int:
            return steps * photos

        def training_batches(self, labels, batch_size, seed, epoch, skip_batches=0):
            inputs = {name: arrays[name] for name in ("region_features", "scene_feature")}
            batch = tf.data.Dataset.from_tensors((inputs, arrays["labels"]))
            return batch.repeat(steps - skip_batches).prefetch(2)

    with tempfile.TemporaryDirectory() as path:
        folder = RunFolder(pathlib.Path(path))
        target = TrainTarget(model, Objective.of_loss(settings.loss), {folder.model: head})
        train(config, folder, strategy, target, Source(), arrays["labels"], None)
        # The first epoch traces and compiles.
        last = json.loads(folder.log.read_text().splitlines()[-1])
    memory = peak_memory()
    if gpus:
        memory = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    return {
        "device": f"{len(gpus)} GPU" if gpus else "CPU",
        "precision": precision,
        "memory": memory,
        "images_per_second": last["images_per_second"],
        "data_wait_share": last["data_wait_share"],
    }


def _sizes(arguments: argparse.Namespace) -> dict:
    return SMALL if arguments.smoke else {}


SIDES = {
    "ours, JAX": measure_ours,
    "released, PyTorch": measure_released,
    "trainer": measure_trainer,
}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--classes", type=int, default=925)
    parser.add_argument("--photos", type=int, default=256)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--strategy", default="default")
    parser.add_argument("--smoke", action="store_true")
    arguments = parser.parse_args(argv)
    if arguments.smoke:
        arguments.classes, arguments.photos = 50, 2
    arrays = make_arrays(arguments.classes, arguments.photos)
    try:
        found = SIDES[arguments.side](arguments, arrays)
    except Unusable as error:
        found = {"unusable": str(error)}
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if not any(word in said for word in ("OutOfMemory", "out of memory", "RESOURCE_EXHAUSTED")):
            raise
        found = {"failed": "does not fit into the memory of the device"}
    print("\n" + json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
