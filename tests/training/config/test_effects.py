"""Settings that do nothing beside others are refused, but the files of runs are read."""

import dataclasses

import pytest
import yaml
from config_errors import message_of

from training.config import OptimizerConfig, RunConfig, config_to_yaml, config_values, load_config
from training.reproduction.entries import Study

pytestmark = pytest.mark.unit

SGD = "training.optimizer.name=sgd"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "training: {optimizer: {name: sgd, beta_1: 0.9}}",
            "training.optimizer.beta_1: has no effect with training.optimizer.name: sgd, which has "
            "training.optimizer.momentum instead; leave it out (its default is 0.5)",
        ),
        ("training: {optimizer: {name: sgd, beta_2: 0.9}}", "training.optimizer.beta_2: has no"),
        (
            "training: {optimizer: {name: adamw, momentum: 0.9}}",
            "training.optimizer.momentum: has no effect with training.optimizer.name: adamw, whose "
            "momentum is beta_1",
        ),
        (
            "training: {optimizer: {name: sgd, nesterov: true}}",
            "training.optimizer.nesterov: has no effect without training.optimizer.momentum",
        ),
        (
            "training: {optimizer: {decay_vectors: true}}",
            "training.optimizer.decay_vectors: has no effect without training.optimizer.weight_d",
        ),
        (
            "training: {schedule: {decay: constant, final_learning_rate: 1e-4}}",
            "training.schedule.final_learning_rate: has no effect with training.sched",
        ),
        (
            "training: {loss: {name: softmax, margin: 2}}",
            "training.loss.margin: has no effect with training.loss.name: softmax; leave it out, "
            "or set training.loss.name: ranking",
        ),
        (
            "{head: {preset: recommended}, training: {loss: {reduction: sum}}}",
            "training.loss.reduction: has no effect with the softmax loss, that of a head that "
            "scores by cosine",
        ),
        (
            "training: {loss: {over_images: 0.1}}",
            "training.loss.over_images: has no effect with the ranking loss, that of a head that "
            "scores by dot product",
        ),
        (
            "backbone: {batch_size: 8}",
            "backbone.batch_size: has no effect with backbone.trainable: true",
        ),
        (
            "logical_cpu_devices: 2",
            "logical_cpu_devices: has no effect with strategy: default, which uses one device",
        ),
    ],
)
def test_a_setting_without_effect_is_named_with_what_makes_it_so(write, text, message):
    path = write(text)
    assert message_of(path).startswith(f"{path}: {message}")


def test_the_option_that_made_a_setting_useless_is_named(write):
    path = write("training: {optimizer: {beta_1: 0.9}}")
    assert message_of(path, SGD).startswith(f"--set {SGD}: training.optimizer.name: has no effect")


@pytest.mark.parametrize(
    "text",
    [
        "training: {optimizer: {name: sgd, beta_1: 0.5, momentum: 0.9, nesterov: true}}",
        "training: {optimizer: {name: sgd, weight_decay: 0.1, decay_vectors: true}}",
        "training: {loss: {name: softmax, margin: 1.0, over_images: 0.1}}",
        "{backbone: {name: vgg19, trainable: false, batch_size: 8}}",
        "{strategy: mirrored, logical_cpu_devices: 2}",
        "training: {schedule: {decay: constant, final_learning_rate: 0.0}}",
    ],
)
def test_what_has_an_effect_or_its_default_is_read(write, text):
    load_config(write(text))


def with_optimizer(config: RunConfig, **settings) -> RunConfig:
    training = dataclasses.replace(config.training, optimizer=OptimizerConfig(**settings))
    return dataclasses.replace(config, training=training)


def of_early_run(config: RunConfig) -> str:
    """The file of a run from before decay_vectors, momentum and nesterov."""
    values = config_values(config)
    for key in ("decay_vectors", "momentum", "nesterov"):
        del values["training"]["optimizer"][key]
    return yaml.safe_dump(values)


def test_the_file_of_a_run_is_read_with_settings_that_had_no_effect(write):
    early = with_optimizer(RunConfig(), name="sgd", beta_1=0.9)
    path = write(of_early_run(early))
    assert load_config(path).training.optimizer == early.training.optimizer
    # What is given beside it is still checked.
    useless = "training.optimizer.beta_2=0.9"
    assert message_of(path, useless).startswith(f"--set {useless}: training.optimizer.beta_2: has")


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_an_early_run_lets_vectors_decay_and_a_new_file_keeps_what_it_says(write, decay):
    config = with_optimizer(RunConfig(), name="adamw", weight_decay=decay)
    found = load_config(write(of_early_run(config))).training.optimizer
    assert found == OptimizerConfig(name="adamw", weight_decay=decay, decay_vectors=decay > 0)
    assert (
        load_config(write(config_to_yaml(config))).training.optimizer == config.training.optimizer
    )


def test_only_what_trains_otherwise_gets_another_folder_in_a_table(write, tmp_path):
    def folder(*settings) -> str:
        study = Study(str(path), (), tmp_path, 1, 1)
        return study.config_of(settings, 0).output

    path = write("training: {optimizer: {name: adamw, weight_decay: 0.1}}")
    vectors_too = folder("training.optimizer.decay_vectors=true")
    assert folder() != vectors_too
    assert folder("training.optimizer={name: sgd, momentum: 0.9}") != folder(
        "training.optimizer={name: sgd}"
    )
