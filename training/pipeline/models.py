"""The models of a run: embeddings of its classes, backbone, head and objective."""

import dataclasses
import pathlib
from typing import Any

import keras
import tensorflow as tf

from biam_tf.backbones import BackboneClasses, build_backbone, load_classifier
from biam_tf.backbones.joint_space import joint_space
from biam_tf.baselines.known_classes import DuplicateEmbeddings
from biam_tf.embeddings.backbone_names import (
    embed_backbone_classes,
    is_same_file,
    listed_sources,
    name_sources,
)
from biam_tf.embeddings.sources import AUTO, vocabulary_of
from biam_tf.embeddings.spaces import require_joint_space
from biam_tf.errors import UserError
from biam_tf.models import HeadInputs, bind_vocabulary, build_tagger, scores_alone
from biam_tf.models.systems import SYSTEMS
from biam_tf.vocabulary import Vocabulary
from biam_tf.ways_to_compute import Plan, planned
from training.config import HeadConfig, RunConfig
from training.data.class_list import read_class_list
from training.data.dataset import TaggingDataset
from training.data.folder.reader import CLASSES
from training.loop.objective import Objective, make_objective, training_model
from training.loop.something_to_learn import require_something_to_learn
from training.loop.trainer import TrainTarget
from training.pipeline.examples import trainable_photos
from training.pipeline.run_folder import RunFolder
from training.scoring.evaluation import ATTRIBUTES_FILE


def class_vocabulary(config: RunConfig, dataset: TaggingDataset) -> Vocabulary:
    """Returns the embeddings of a data set's classes, from the file that the settings name.

    Raises:
        UserError: no file is named and the data set brings none, or a class is not in it.
    """
    path = pathlib.Path(dataset.directory / ATTRIBUTES_FILE)
    settings = config.vocabulary
    if settings.word_vectors is not None:
        classes = dataset.directory / CLASSES
        return vocabulary_of(
            settings.word_vectors,
            dataset.names,
            dataset.groups,
            settings.templates,
            read_class_list(classes).descriptions if classes.is_file() else None,
        )
    if not path.exists():
        raise UserError(
            f"vocabulary.word_vectors: not set, and the data set has no {path.name}; give a file "
            "of word vectors, for example GloVe's, with "
            "--set vocabulary.word_vectors=glove.6B.300d.txt"
        )
    return Vocabulary.from_file(path, dataset.names, dataset.groups)


@dataclasses.dataclass(frozen=True)
class Models:
    """The models of a run, which share their weights.

    Attributes:
        backbone: photos to features.
        head: features and class embeddings to scores.
        trained: inputs of the training batches to scores over the seen classes, or to the outputs
            that the objective takes by name.
        objective: the losses to minimize.
        scored: the same inputs and any class embeddings to scores.
    """

    backbone: keras.Model
    head: keras.Model
    trained: keras.Model
    objective: Objective
    scored: keras.Model

    def target(self, folder: RunFolder) -> TrainTarget:
        """Returns what is trained, and the files of a run's folder that it is saved to."""
        saved = {folder.model: self.head}
        if not self.backbone.trainable:  # the inputs are features
            return TrainTarget(self.trained, self.objective, saved)
        saved |= {folder.backbone: self.backbone}
        return TrainTarget(self.trained, self.objective, saved, self.backbone)


def build_models(
    config: RunConfig, strategy: tf.distribute.Strategy, vocabulary: Vocabulary
) -> Models:
    """Builds backbone, head and objective of a configuration, with the weights of its seed.

    Raises:
        UserError: the weights of the backbone are not available, or the head does not fit its
            regions.
    """
    classes = _backbone_classes(config, vocabulary)
    keras.utils.set_random_seed(config.training.seed)
    with strategy.scope(), planned(_plan(config, strategy, vocabulary)):
        backbone = build_backbone(
            config.backbone.name,
            config.backbone.image_size,
            config.backbone.weights,
            trainable=config.backbone.trainable,
            regions=config.backbone.regions,
        )
        if SYSTEMS[config.head.system].uses_joint_space:
            require_joint_space(
                joint_space(backbone),
                config.vocabulary.word_vectors,
                config.backbone.name,
                f"head.system: {config.head.system}",
            )
        seen = vocabulary.subset(group="seen")
        head = _build_head(config.head, backbone, seen, classes)
        bound = bind_vocabulary(training_model(head, config.head), seen.embeddings)
        objective = make_objective(head, config.head, config.training.loss)
        if not config.backbone.trainable:
            return Models(backbone, head, bound, objective, scores_alone(head))
        tagger = build_tagger(backbone, scores_alone(head))
        return Models(backbone, head, build_tagger(backbone, bound), objective, tagger)


def _plan(config: RunConfig, strategy: tf.distribute.Strategy, vocabulary: Vocabulary) -> Plan:
    """Returns what a device will compute in a training step."""
    training = config.training
    parts = strategy.num_replicas_in_sync * training.accumulation_steps
    seen = vocabulary.subset(group="seen")
    return Plan(training.batch_size // parts, len(seen.names), compiled=training.jit is True)


def with_settings(
    config: RunConfig, models: Models, vocabulary: Vocabulary, settings: Any
) -> Models:
    """Returns the models with a head of other settings, for systems that are not trained."""
    changed = dataclasses.replace(config.head, settings=settings)
    seen = vocabulary.subset(group="seen")
    head = _build_head(changed, models.backbone, seen, _backbone_classes(config, vocabulary))
    return dataclasses.replace(models, head=head, scored=scores_alone(head))


def check_training_labels(config: RunConfig, dataset: TaggingDataset, models: Models) -> None:
    """Raises a UserError if no training photo shows a seen class, or if they teach nothing."""
    system = SYSTEMS[config.head.system]
    if not system.trained:
        return
    labels = trainable_photos(dataset, config.data.max_labels, prints=False).labels
    if system.fit is None:
        require_something_to_learn(
            models.objective, models.trained, labels.columns(dataset.seen), str(dataset.directory)
        )


def _backbone_classes(config: RunConfig, vocabulary: Vocabulary) -> BackboneClasses | None:
    """Returns the classes of the backbone; None for a head that does not use them."""
    settings, word_vectors = config.head.settings, config.vocabulary.word_vectors
    use = getattr(settings, "use_backbone_classes", "required")
    if not SYSTEMS[config.head.system].uses_backbone_classes or use == "none":
        return None
    name = config.backbone.name
    if use == "if_known" and (reason := _without_backbone_classes(config)) is not None:
        print(f"head.use_backbone_classes: not used: {reason}", flush=True)
        return None
    classifier = load_classifier(name, config.backbone.weights)
    sources = name_sources(
        classifier.names,
        settings.name_vectors,
        word_vectors,
        settings.template,
        config.vocabulary.templates or (),
    )
    listed = listed_sources(sources)
    same = len(sources) == 1 and is_same_file(sources[0].source, word_vectors)
    try:
        classes = embed_backbone_classes(classifier, vocabulary, sources, settings.template, same)
    except UserError as error:
        if use == "required":
            raise
        raise UserError(
            f"{error}; or leave out what the backbone knows, with head.use_backbone_classes: none"
        ) from error
    names, embedded = len(classifier.names), len(classes.classifier.names)
    left_out = f"; {names - embedded} have none and are left out" if embedded < names else ""
    print(f"{names} classes of {name}, embedded by {listed}{left_out}", flush=True)
    return classes


def _without_backbone_classes(config: RunConfig) -> str | None:
    """Returns why a head does without the classes of the backbone; None: it need not."""
    backbone = config.backbone
    if config.vocabulary.word_vectors is None and config.head.settings.name_vectors == AUTO:
        return "the class embeddings are attributes of the data set, not of names"
    if backbone.trainable:
        return "the backbone is trained, and its features no longer are those of its classifier"
    try:
        load_classifier(backbone.name, backbone.weights)
    except UserError as error:
        return str(error)
    return None


def _build_head(
    config: HeadConfig,
    backbone: keras.Model,
    seen: Vocabulary,
    backbone_classes: BackboneClasses | None,
) -> keras.Model:
    try:
        inputs = HeadInputs.of_shapes(
            backbone.output["region_features"].shape[1:],
            backbone.output["scene_feature"].shape[-1],
            seen.embedding_size,
            seen.embeddings,
            backbone_classes,
            joint_space(backbone),
        )
        return inputs.model(SYSTEMS[config.system].build(inputs, config.settings))
    except DuplicateEmbeddings as error:
        one, other = (seen.names[row] for row in error.rows)
        raise UserError(
            f"head.system: {config.system} tells classes apart by their embeddings, and those of "
            f"{one!r} and {other!r} are the same; remove one of the classes, or use other "
            "vocabulary.word_vectors"
        ) from error
    except ValueError as error:  # settings that do not fit this backbone's regions
        raise UserError(f"head: {error}") from error
