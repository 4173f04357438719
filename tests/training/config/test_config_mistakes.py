"""Mistakes in a configuration are named with file, key, value and a way out."""

import pytest
from config_errors import message_of

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("head: {num_head: 4}", "head.num_head: unknown key; did you mean 'num_heads'?"),
        ("trainin: {epochs: 4}", "trainin: unknown key; did you mean 'training'?"),
        ("training: {epochs: ten}", "training.epochs: expected a whole number, got 'ten'"),
        ("training: {epochs: 1.5}", "training.epochs: expected a whole number, got 1.5"),
        ("training: {epochs: true}", "training.epochs: expected a whole number, got True"),
        ("training: {epochs: -1}", "training.epochs: expected a number at least 1, got -1"),
        ("training: {epochs: null}", "training.epochs: expected a whole number, got null"),
        ("training: {epochs: [1]}", "training.epochs: expected a whole number, got [1]"),
        ("training: {batch_size: 0}", "training.batch_size: expected a number at least 1, got 0"),
        (
            "training: {optimizer: {beta_1: 1}}",
            "training.optimizer.beta_1: expected a number at least 0 and below 1, got 1.0",
        ),
        (
            "training: {optimizer: {learning_rate: 0}}",
            "training.optimizer.learning_rate: expected a number above 0, got 0.0",
        ),
        (
            "training: {optimizer: {learning_rate: .nan}}",
            "training.optimizer.learning_rate: expected a finite number, got nan",
        ),
        (
            "training: {optimizer: {learning_rate: fast}}",
            "training.optimizer.learning_rate: expected a number, got 'fast'",
        ),
        (
            "training: {optimizer: adam}",
            "training.optimizer: expected a section with name, learning_rate, beta_1, beta_2, "
            "weight_decay, decay_vectors, momentum, nesterov; got 'adam'",
        ),
        (
            "training: {optimizer: {name: adan}}",
            "training.optimizer.name: expected one of adam, adamw, sgd; got 'adan'; "
            "did you mean 'adam'?",
        ),
        (
            "training: {precision: 16}",
            "training.precision: expected one of float32, mixed_float16, mixed_bfloat16, auto; "
            "got 16",
        ),
        ("strategy: horovod", "strategy: expected one of default, mirrored, multi_worker; got"),
        ("backbone: {trainable: 1}", "backbone.trainable: expected true or false, got 1"),
        ("backbone: {image_size: big}", "backbone.image_size: expected a whole number, got 'big'"),
        ("backbone: {name: smal}", "unknown backbone 'smal'; did you mean 'small'?"),
        ("head: {preset: papers}", "head.preset: unknown preset 'papers'; did you mean 'paper'?"),
        ("head: {attention_dropout: 1.0}", "head.attention_dropout: 1.0 is not valid"),
        ("head: {num_heads: 7}", "head.num_heads: 7 is not valid; it must be a divisor"),
        ("head: {top_k: many}", "head.top_k: expected a whole number, got 'many'"),
        ("head: {classify: region}", "head.classify: 'region' is not valid; it must be one of"),
        ("head: paper", "head: expected a section with system, preset, "),
        ("output: ''", "output: expected the path of the run's folder"),
        ("12: 3", "12: unknown key"),
        ("- a\n- b", "expected `section: …` lines, got ['a', 'b']"),
        (
            "training:\n  epochs: 1\n  seed: 2\n  epochs: 3\n",
            "line 4: key 'epochs' is already given in line 2",
        ),
        ("training:\n  epochs: [1\noutput: x\n", "line 3: "),
        ("training:\n\tepochs: 1\n", "line 2: found character"),
        ("output: !!python/object:os.system x", "line 1: could not determine a constructor"),
        ("output: a\x01b", "not valid YAML: "),
        (
            "training: {epochs: 2, schedule: {warmup_epochs: 3}}",
            "training.schedule.warmup_epochs: a warm-up of 3 epochs does not fit into "
            "training.epochs: 2",
        ),
        (
            "training: {schedule: {final_learning_rate: 0.5}}",
            "training.schedule.final_learning_rate: the final learning rate 0.5 is above "
            "training.optimizer.learning_rate: 0.001",
        ),
        ("data: {name: foldr}", "data.name: expected one of scenes, folder, "),
        ("data: {pictured: 3}", "data.pictured: unknown key; did you mean 'pictures'?"),
        ("data: {settings: 3}", "data.settings: unknown key"),
        ("data: {pictures: 0}", "data.pictures: expected a number at least 1, got 0"),
        (
            "data: {feature_store: store}",
            "data.feature_store: stored features are those of a frozen backbone; set "
            "backbone.trainable: false",
        ),
        ("data: {max_broken_share: 1}", "data.max_broken_share: expected a number at least 0 and"),
        ("data: {max_labels: 0}", "data.max_labels: expected a number at least 1, got 0"),
        ("data: {sampling: balance}", "data.sampling: expected one of natural, balanced, capped"),
        (
            "data: {sampling: capped}",
            "data.sampling: capped needs a number; set for example",
        ),
        (
            "data: {max_images_per_class: 9}",
            "data.max_images_per_class: has no effect with data.sampling: natural; set it to",
        ),
        (
            "data: {augmentation: {crop_scale: [0.5, 1.5]}}",
            "data.augmentation.crop_scale: expected [smallest, largest] shares of a photo's area, "
            "above 0 and at most 1, got [0.5, 1.5]",
        ),
        (
            "data: {augmentation: {crop_scale: 0.5}}",
            "data.augmentation.crop_scale: expected a list, got 0.5",
        ),
        (
            "data: {augmentation: {flip: true}}\nbackbone: {name: vgg19, trainable: false}",
            "data.augmentation: stored features are those of unchanged photos; set "
            "backbone.trainable: true, or data.augmentation: {flip: false, crop_scale: null}",
        ),
        (
            "backbone: {trainable: false}",
            "backbone.trainable: small starts from random weights here and would never be "
            "trained; set backbone.trainable: true, or backbone.weights: a file",
        ),
        (
            "backbone: {name: vgg19, weights: none, trainable: false}",
            "backbone.trainable: vgg19 starts from random weights here and would never be "
            "trained; set backbone.trainable: true, or backbone.weights: imagenet or a file",
        ),
        (
            "backbone: {name: 'keras_hub:vit', weights: none, trainable: false}",
            "backbone.trainable: keras_hub:vit starts from random weights here and would never be "
            "trained; set backbone.trainable: true, or backbone.weights: default or a file",
        ),
        (
            "backbone: {name: vgg19, trainable: false, learning_rate_scale: 0.1}",
            "backbone.learning_rate_scale: a frozen backbone has no learning rate; set "
            "backbone.trainable: true",
        ),
        (
            "training: {batch_size: 32, accumulation_steps: 3}",
            "training.accumulation_steps: a batch of training.batch_size: 32 cannot be split into "
            "3 equal parts",
        ),
        ("training: {clip_norm: 0}", "training.clip_norm: expected a number above 0, got 0.0"),
        (
            "training: {ema_momentum: 1}",
            "training.ema_momentum: expected a number above 0 and below 1, got 1.0",
        ),
        ("training: {patience: 0}", "training.patience: expected a number at least 1, got 0"),
        (
            "training: {checkpoint_minutes: never}",
            "training.checkpoint_minutes: expected a number, got 'never'",
        ),
        (
            "{strategy: multi_worker, logical_cpu_devices: 2}",
            "logical_cpu_devices: a worker of strategy: multi_worker has one CPU device",
        ),
    ],
)
def test_a_mistake_in_the_file_is_named_with_file_key_value_and_way_out(write, text, message):
    path = write(text)
    assert message_of(path).startswith(f"{path}: ")
    assert message in message_of(path)
    assert "\n" not in message_of(path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.epochs=ten", "training.epochs: expected a whole number, got 'ten'"),
        ("training.epoch=2", "training.epoch: unknown key; did you mean 'epochs'?"),
        ("head.num_heads=7", "head.num_heads: 7 is not valid"),
        ("training.optimizer=adam", "training.optimizer: expected a section with"),
        ("training.optimizer={beta_3: 1}", "training.optimizer.beta_3: unknown key"),
        ("output.name=x", "output is a single value, not a section"),
        ("training.epochs=[1", "line 1: "),
        ("training.epochs", "expected a key path and a value, as in training.epochs=10"),
        ("=3", "expected a key path and a value"),
        ("training..epochs=3", "expected a key path and a value"),
        ("training.epochs=0", "training.epochs: expected a number at least 1, got 0"),
        ("training.optimizer.learning_rate=1e-9", "learning_rate: the final learning rate 0.0001"),
        ("backbone.weights=none", "backbone.weights: vgg19 starts from random weights"),
    ],
)
def test_a_mistake_in_an_override_is_named_as_the_option(write, override, message):
    path = write(
        "output: runs/x\n"
        "backbone: {name: vgg19, trainable: false}\n"
        "training: {schedule: {final_learning_rate: 1e-4}}\n"
    )
    assert message_of(path, override).startswith(f"--set {override}: ")
    assert message in message_of(path, override)


def test_a_mistake_in_the_file_is_not_blamed_on_an_override(write):
    path = write("training: {epochs: ten}")
    assert message_of(path, "training.seed=1").startswith(f"{path}: training.epochs: ")


def test_a_missing_file_is_named_with_the_nearest_one(write, tmp_path):
    path = write("output: x")
    assert (
        message_of(tmp_path / "mien.yaml") == f"{tmp_path / 'mien.yaml'}: no such configuration "
        f"file; did you mean {str(path)!r}?"
    )
    assert "cannot be read as a configuration file" in message_of(tmp_path)


def test_a_file_that_is_not_text_is_refused(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"\x93\xff\x00")
    assert message_of(path).startswith(f"{path}: cannot be read as a configuration file")
