"""Short trainings beside a run, on other photos or classes: what a fold learns, scores and forgets.

They take the settings of the run and about half of its steps, in a folder of their own, which is
removed when they have scored. One that is stopped goes on where it was.
"""

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable

from biam_tf.files import read_model, writing_to
from biam_tf.models.systems import SYSTEMS
from biam_tf.runs import TrainedRun
from biam_tf.vocabulary import Vocabulary
from training.config import RunConfig, TrainingConfig, config_values
from training.data.dataset import SEEN, TaggingDataset
from training.loop.closed_form import fit_head
from training.loop.devices import computing_in
from training.loop.objective import prepare_head
from training.loop.trainer import train
from training.loop.workers import Workers
from training.pipeline.examples import Examples, open_examples
from training.pipeline.models import build_models
from training.pipeline.run_folder import RunFolder

SHARE_OF_STEPS = 0.5


@dataclasses.dataclass(frozen=True, eq=False)
class ShortTraining:
    """What is trained.

    Attributes:
        config: settings of the run.
        run: folder of the run, beside which the stored features are.
        own: folder of this training.
        dataset: the training photos and all that are scored, with the classes' groups.
        vocabulary: its classes.
        epochs: of this training.
    """

    config: RunConfig
    run: pathlib.Path
    own: RunFolder
    dataset: TaggingDataset
    vocabulary: Vocabulary
    epochs: int


def epochs_of(settings: TrainingConfig, whole: int, photos: int) -> int:
    """Returns the epochs that make `SHARE_OF_STEPS` of a run's steps.

    Args:
        settings: of the run.
        whole: photos in an epoch of the run.
        photos: in an epoch of the short training.
    """
    epochs = math.ceil(SHARE_OF_STEPS * settings.epochs * whole / photos)
    return min(settings.epochs, epochs)


def train_shortly(
    work: ShortTraining, workers: Workers, score: Callable[[TrainedRun, Examples], None]
) -> None:
    """Trains, calls `score` with the trained model and its examples, and removes the folder.

    All processes of a run call this together; the chief alone scores.

    Args:
        work: what is trained.
        workers: the processes.
        score: writes the scores; called with the precision of the training.
    """
    own = work.own
    if workers.is_chief:
        with writing_to(own.path):
            own.path.mkdir(parents=True, exist_ok=True)
    config = _settings(work)
    with computing_in(config.training.precision):
        models = build_models(config, workers.strategy, work.vocabulary)
        examples = open_examples(config, work.run, work.dataset, models.backbone)
        training = examples.for_training(work.epochs)
        data = (training.source, training.labels)
        if SYSTEMS[config.head.system].fit is not None:
            seen = work.vocabulary.subset(group=SEEN).embeddings
            fit_head(config, own, models.head, *data, seen, None)
        else:
            prepare_head(models.head, config.head, training.labels)
            train(config, own, workers.strategy, models.target(own), *data, None)
        if workers.is_chief:
            head = read_model(own.model, "delete its folder to train it again")
            backbone = models.backbone
            if backbone.trainable:
                from biam_tf.backbones import load_backbone

                backbone = load_backbone(config.backbone.name, own.backbone)
            values = config_values(config)
            score(TrainedRun(own, values, work.vocabulary, head, backbone), examples)
    if workers.is_chief:
        shutil.rmtree(own.path)


def _settings(work: ShortTraining) -> RunConfig:
    training = work.config.training
    share = work.epochs / training.epochs
    schedule = dataclasses.replace(
        training.schedule, warmup_epochs=training.schedule.warmup_epochs * share
    )
    training = dataclasses.replace(
        training,
        epochs=work.epochs,
        schedule=schedule,
        patience=None,
        tensorboard=False,
        report=False,
    )
    return dataclasses.replace(work.config, training=training)
