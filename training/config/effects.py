"""Settings that have no effect beside others are refused: nobody shall trust one that does nothing.

The file of a run contains every setting, whether or not it has an effect. Such a file is read as
it is; a setting that a `--set` option gives beside it is checked.
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

from biam_tf.embeddings.sources import encodes_sentences
from training.config.schema import (
    LossConfig,
    OptimizerConfig,
    RunConfig,
    ScheduleConfig,
    VocabularyConfig,
)
from training.config.typed_yaml import Settings


@dataclasses.dataclass(frozen=True)
class _WithoutEffect:
    """A setting that does nothing.

    Attributes:
        key: its key path.
        value: what it is set to.
        default: what it would be set to if it were left out.
        beside: key path of the setting that makes it so.
        reason: why, and what to do.
    """

    key: str
    value: Any
    default: Any
    beside: str
    reason: str


def refuse_settings_without_effect(
    settings: Settings, config: RunConfig, of_a_run: bool = False
) -> None:
    """Checks that every setting that is not at its default has an effect.

    Args:
        settings: what was read.
        config: the settings made of it.
        of_a_run: whether the file is that of a run, which contains every setting.

    Raises:
        UserError: a setting has no effect; the message says beside which other one.
    """
    for setting in _without_effect(config):
        given = not of_a_run or settings.is_override(setting.key)
        if given and setting.value != setting.default:
            settings.fail_combination(
                [setting.key, setting.beside], f"has no effect {setting.reason}"
            )


def as_early_runs(settings: Settings, config: RunConfig) -> RunConfig:
    """Returns the settings of a run's file with the meaning that they had when it was written.

    Before there was `training.optimizer.decay_vectors`, everything decayed; before there was
    `backbone.orientation`, it was ignored; before `backbone.regions`, regions were tokens.
    """
    backbone = settings.plain(settings.values.get("backbone"))
    if isinstance(backbone, dict) and "regions" not in backbone:
        preset = config.backbone.name.startswith("keras_hub:")
        config = dataclasses.replace(
            config,
            backbone=dataclasses.replace(config.backbone, regions="tokens" if preset else None),
        )
    if isinstance(backbone, dict) and "orientation" not in backbone:
        config = dataclasses.replace(
            config, backbone=dataclasses.replace(config.backbone, orientation="ignore")
        )
    training = settings.plain(settings.values.get("training"))
    written = settings.plain(training.get("optimizer")) if isinstance(training, dict) else None
    optimizer = config.training.optimizer
    if not isinstance(written, dict) or "decay_vectors" in written or not optimizer.weight_decay:
        return config
    optimizer = dataclasses.replace(optimizer, decay_vectors=True)
    training = dataclasses.replace(config.training, optimizer=optimizer)
    return dataclasses.replace(config, training=training)


def _without_effect(config: RunConfig) -> Iterator[_WithoutEffect]:
    yield from _of_optimizer(config.training.optimizer)
    yield from _of_loss(config)
    schedule, backbone = config.training.schedule, config.backbone
    if schedule.decay == "constant":
        yield _WithoutEffect(
            "training.schedule.final_learning_rate",
            schedule.final_learning_rate,
            ScheduleConfig.final_learning_rate,
            "training.schedule.decay",
            "with training.schedule.decay: constant, which stays at the learning rate; set "
            "decay: cosine, or leave it out",
        )
    if backbone.trainable:
        yield _WithoutEffect(
            "backbone.batch_size",
            backbone.batch_size,
            None,
            "backbone.trainable",
            "with backbone.trainable: true: it is the batch of feature extraction, and features "
            "are not stored; the batch of training is training.batch_size",
        )
    source = config.vocabulary.word_vectors
    if source is None or not encodes_sentences(source):
        yield _WithoutEffect(
            "vocabulary.templates",
            config.vocabulary.templates,
            VocabularyConfig.templates,
            "vocabulary.word_vectors",
            "unless vocabulary.word_vectors is an encoder of texts, such as keras_hub:PRESET; "
            "leave it out",
        )
    if config.strategy == "default":
        yield _WithoutEffect(
            "logical_cpu_devices",
            config.logical_cpu_devices,
            1,
            "strategy",
            "with strategy: default, which uses one device; set strategy: mirrored",
        )


def _of_optimizer(optimizer: OptimizerConfig) -> Iterator[_WithoutEffect]:
    def unused(name: str, beside: str, reason: str) -> _WithoutEffect:
        return _WithoutEffect(
            f"training.optimizer.{name}",
            getattr(optimizer, name),
            getattr(OptimizerConfig, name),
            f"training.optimizer.{beside}",
            reason,
        )

    if optimizer.name == "sgd":
        for beta in ("beta_1", "beta_2"):
            yield unused(
                beta,
                "name",
                "with training.optimizer.name: sgd, which has training.optimizer.momentum instead; "
                f"leave it out (its default is {getattr(OptimizerConfig, beta):g})",
            )
    else:
        for name in ("momentum", "nesterov"):
            yield unused(
                name,
                "name",
                f"with training.optimizer.name: {optimizer.name}, whose momentum is beta_1; set "
                "training.optimizer.name: sgd, or leave it out",
            )
    if not optimizer.momentum:
        yield unused("nesterov", "momentum", "without training.optimizer.momentum; set one")
    if not optimizer.weight_decay:
        yield unused(
            "decay_vectors", "weight_decay", "without training.optimizer.weight_decay; set one"
        )


def _of_loss(config: RunConfig) -> Iterator[_WithoutEffect]:
    from biam_tf.models.systems import SYSTEMS

    if SYSTEMS[config.head.system].make_losses is not None:
        return  # which refuses every setting of the loss
    loss = config.training.loss
    cosine = getattr(config.head.settings, "classifier", None) == "cosine"
    name = loss.name or ("softmax" if cosine else "ranking")
    where = f"with training.loss.name: {name}"
    if loss.name is None:
        kind = "cosine" if cosine else "dot product"
        where = f"with the {name} loss, that of a head that scores by {kind}"
    unused, other = (
        (("margin", "reduction"), "ranking") if name == "softmax" else (("over_images",), "softmax")
    )
    for key in unused:
        yield _WithoutEffect(
            f"training.loss.{key}",
            getattr(loss, key),
            getattr(LossConfig, key),
            "training.loss.name",
            f"{where}; leave it out, or set training.loss.name: {other}",
        )
