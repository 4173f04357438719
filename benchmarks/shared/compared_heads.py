"""The head of this project and that of the released method, and the floor of their speed."""

from biam_tf.errors import UserError

REGIONS, SCENE, EMBEDDING, POSITIVES = (14, 14, 512), 4096, 300, 4


class Ours:
    """The head, training step and scorer of this project on given arrays."""

    def __init__(
        self,
        arrays: dict,
        precision: str = "float32",
        xla: bool = False,
        in_blocks: bool = True,
        **settings,
    ):
        import keras
        import tensorflow as tf

        from biam_tf.models import bind_vocabulary, build_head
        from biam_tf.models.head import scores_alone
        from training.config import TrainingConfig
        from training.loop.objective import Objective
        from training.loop.train_step import TrainStep
        from training.scoring.scorer import make_scorer

        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(precision)
        try:
            shape = arrays["region_features"].shape[1:]
            self.head = build_head(shape, SCENE, EMBEDDING, preset="released", **settings)
            scored = scores_alone(self.head) if in_blocks else self.head
            bound = bind_vocabulary(scored, arrays["class_embeddings"])
        finally:
            keras.config.set_dtype_policy(before)
        config = TrainingConfig(batch_size=len(arrays["labels"]), precision=precision)
        self._objective = Objective.of_loss(config.loss)
        self._step = TrainStep(config, tf.distribute.get_strategy(), bound, self._objective, 100)
        if xla:
            self._step.compile_with_xla()
        names = ("region_features", "scene_feature")
        self._inputs = {name: tf.constant(arrays[name]) for name in names}
        self._labels = tf.constant(arrays["labels"])
        self._classes = tf.constant(arrays["class_embeddings"])
        self._scorer = make_scorer(scored)

    def load(self, path: str) -> None:
        """Takes the weights of a file of `Rival.save`."""
        from biam_tf.checkpoints import load_released_checkpoint

        self.head.set_weights(load_released_checkpoint(path, num_heads=8).get_weights())

    def count_operations(self) -> float:
        """Returns the operations to score all photos; a multiply-add counts as two."""
        from training.reproduction.costs import count_operations

        return len(self._labels) * float(count_operations(self.head, self._classes.numpy()))

    def step(self) -> float:
        """One training step; returns its loss."""
        return self._step(iter([(self._inputs, self._labels)]), stop=False).loss

    def score(self):
        """Scores (B, C) in inference."""
        return self._scorer(self._inputs, self._classes)["scores"].numpy()

    def loss_and_gradient(self, scores):
        """The batch's loss and its gradient in the scores, as arrays."""
        import tensorflow as tf

        scores = tf.constant(scores)
        with tf.GradientTape() as tape:
            tape.watch(scores)
            losses = self._objective.losses(self._labels, {"scores": scores})
            loss = tf.reduce_mean(losses)
        return loss.numpy(), tape.gradient(loss, scores).numpy()


class Rival:
    """The released method in PyTorch on given arrays."""

    def __init__(self, arrays: dict, channels: int = 256, fused_channels: int = 512):
        try:
            import torch
        except ImportError as error:
            raise UserError(
                "PyTorch is not installed; install it with pip install 'biam-tf[benchmarks]'"
            ) from error

        from benchmarks.shared.torch_rival import TorchBiAM

        torch.manual_seed(0)
        self._torch = torch
        self.model = TorchBiAM(channels=channels, fused_channels=fused_channels)
        self._optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, betas=(0.5, 0.999))
        regions = arrays["region_features"].transpose(0, 3, 1, 2).copy()
        rest = (arrays["scene_feature"], arrays["class_embeddings"])
        self._inputs = [torch.from_numpy(array) for array in (regions, *rest)]
        self._labels = torch.from_numpy(arrays["labels"])

    def save(self, path: str) -> None:
        """Writes the weights as the released code does."""
        self._torch.save({"state_dict": self.model.state_dict()}, path)

    def step(self) -> float:
        """One training step; returns its loss."""
        from benchmarks.shared.torch_rival import pairwise_loss

        self._optimizer.zero_grad()
        loss = pairwise_loss(self.model.train()(*self._inputs), self._labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()

    def score(self):
        """Scores (B, C) in inference."""
        with self._torch.no_grad():
            return self.model.eval()(*self._inputs).numpy()

    def loss_and_gradient(self, scores):
        """The batch's loss and its gradient in the scores, as arrays."""
        from benchmarks.shared.torch_rival import pairwise_loss

        scores = self._torch.from_numpy(scores).requires_grad_()
        loss = pairwise_loss(scores, self._labels)
        loss.backward()
        return loss.detach().numpy(), scores.grad.numpy()


def make_arrays(classes: int, photos: int, regions: tuple[int, ...] = REGIONS) -> dict:
    """Returns random region features, scene features, class embeddings and labels."""
    import numpy as np

    rng = np.random.default_rng(0)
    labels = np.full((photos, classes), -1, np.int8)
    np.put_along_axis(labels, rng.integers(0, classes, (photos, POSITIVES)), 1, axis=1)
    embeddings = rng.normal(size=(classes, EMBEDDING)).astype(np.float32)
    return {
        "region_features": rng.normal(size=(photos, *regions)).astype(np.float32),
        "scene_feature": rng.normal(size=(photos, SCENE)).astype(np.float32),
        "class_embeddings": embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True),
        "labels": labels,
    }


class Product:
    """A product of two large matrices, the fastest operation of a processor."""

    def __init__(self, size: int):
        import numpy as np
        import tensorflow as tf

        matrix = tf.constant(np.random.default_rng(0).normal(size=(size, size)), tf.float32)
        self._product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))

    def run(self) -> float:
        """Computes the product and returns the sum of its elements."""
        return float(self._product())
