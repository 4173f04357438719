import dataclasses
import pathlib
import subprocess
import sys

import pytest
import yaml
from config_errors import message_of

from biam_tf.models.presets import PRESETS, HeadSettings
from biam_tf.models.systems import SYSTEMS
from training.config import DataConfig, HeadConfig, RunConfig, config_to_yaml, load_config

pytestmark = pytest.mark.unit

CONFIGS = pathlib.Path(__file__).parents[3] / "configs"


@pytest.mark.parametrize("overrides", [[], ["head.top_k=3", "training.epochs=2"]])
def test_without_a_file_it_is_the_quickstart(overrides):
    assert load_config(None, overrides) == load_config(CONFIGS / "quickstart.yaml", overrides)
    # Overrides of one call must not stay behind for the next.
    assert load_config(None) == load_config(CONFIGS / "quickstart.yaml")


def test_an_empty_file_holds_the_defaults(write):
    assert load_config(write("# nothing yet\ntraining:\n  # epochs: 3\nhead:\n")) == RunConfig()


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
class TestShippedConfigurations:
    def test_loads_and_survives_a_round_trip(self, path, write):
        config = load_config(path, ["data.directory=photos"])
        assert load_config(write(config_to_yaml(config))) == config

    def test_says_what_it_is_for_the_command_and_the_result(self, path):
        header = path.read_text().partition("\n\n")[0]
        assert all(line.startswith("#") for line in header.splitlines())
        assert "python -m training.run" in header
        assert "\n# Result:" in header

    def test_writes_into_a_run_folder_of_its_own(self, path):
        assert load_config(path, ["data.directory=photos"]).output == f"runs/{path.stem}"


def test_yaml_of_a_config_holds_every_setting(write):
    lines = config_to_yaml(RunConfig())
    for cls in (RunConfig, *(type(section) for section in _sections(RunConfig()))):
        for field in dataclasses.fields(cls):
            if field.name != "settings":  # the head's stand in its section, one by one
                assert f"{field.name}:" in lines


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_preset_of_a_system_survives_a_round_trip_without_its_name(name, write):
    for preset in SYSTEMS[name].presets:
        frozen = "backbone={name: vgg19, trainable: false}"
        config = load_config(None, [f"head={{system: {name}, preset: {preset}}}", frozen])
        assert config.head == HeadConfig(name, SYSTEMS[name].presets[preset])
        text = config_to_yaml(config)
        assert "preset" not in yaml.safe_load(text)["head"]
        assert load_config(write(text)) == config


def test_a_preset_that_changes_changes_no_configuration_that_was_written(write, monkeypatch):
    config = load_config(None, ["head.preset=recommended", "head.top_k=5"])
    path = write(config_to_yaml(config))
    changed = {**PRESETS, "recommended": HeadSettings(channels=128, num_heads=4)}
    monkeypatch.setitem(SYSTEMS, "biam", dataclasses.replace(SYSTEMS["biam"], presets=changed))
    assert load_config(path) == config
    assert load_config(None, ["head.preset=recommended", "head.top_k=5"]) != config


def test_a_configuration_of_a_run_that_names_a_preset_is_resolved(write):
    text = "head: {system: biam, preset: recommended, channels: 64, num_heads: 4}"
    expected = dataclasses.replace(PRESETS["recommended"], channels=64, num_heads=4)
    assert load_config(write(text)).head == HeadConfig("biam", expected)


def test_a_run_of_version_0_1_that_names_a_preset_keeps_its_settings(write):
    values = yaml.safe_load(config_to_yaml(load_config(None)))
    values["head"] = {"system": "biam", "preset": "recommended", "top_k": 3}
    path = write(yaml.safe_dump(values))
    old = dataclasses.replace(PRESETS["recommended_0_1"], top_k=3)
    assert (old.channels, old.region_context, old.use_backbone_classes) == (
        256,
        "self_attention",
        "none",
    )
    assert load_config(path).head.settings == old
    assert load_config(path, ["head.preset=recommended"]).head.settings == dataclasses.replace(
        PRESETS["recommended"], top_k=3
    )


def test_a_preset_without_effect_on_a_whole_configuration_is_refused(write):
    path = write(config_to_yaml(RunConfig()))
    assert "head.preset: has no effect on" in message_of(path, "head.preset=released")


def _sections(config):
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield value
            yield from _sections(value)


def test_head_takes_every_field_of_head_settings_and_nothing_else(write):
    sizes = {"fused_channels": 64, "scene_scores_channels": 32}
    values = dataclasses.asdict(HeadSettings(top_k=3, num_heads=4, **sizes))
    text = "head:\n  preset: released\n" + "".join(
        f"  {key}: {str(value).lower() if isinstance(value, bool) else value}\n"
        for key, value in values.items()
    )
    head = load_config(write(text)).head
    assert head.settings == HeadSettings(**values)


def test_set_overrides_the_file_in_order(write):
    path = write("training: {epochs: 3}\n")
    config = load_config(
        path,
        [
            "training.epochs=7",
            "training.epochs=8",
            "training.schedule.decay=constant",
            "head.top_k=2",
            "vocabulary.word_vectors=a=b.txt",
            "data.directory=null",
            "training.optimizer={name: sgd}",
        ],
    )
    assert config.training.epochs == 8
    assert config.training.schedule.decay == "constant"
    assert config.head.settings == dataclasses.replace(PRESETS["paper"], top_k=2)
    assert config.vocabulary.word_vectors == "a=b.txt"
    assert config.data.directory is None
    assert config.training.optimizer.name == "sgd"


@pytest.mark.parametrize("text", ["1e-4", "1E-4", "0.0001", "1.0e-4", ".1e-3"])
def test_floats_may_be_written_as_people_write_them(write, text):
    config = load_config(write(f"training: {{optimizer: {{learning_rate: {text}}}}}"))
    assert config.training.optimizer.learning_rate == pytest.approx(1e-4)


def test_what_may_be_left_out_is_null(write):
    path = write("training: {clip_norm: 1, patience: 3}\n")
    config = load_config(path, ["training.patience=null", "training.checkpoint_minutes=null"])
    assert config.training.clip_norm == 1.0 and config.training.ema_momentum is None
    assert config.training.patience is None and config.training.checkpoint_minutes is None


def test_a_whole_number_is_a_float_where_one_is_expected(write):
    value = load_config(write("training: {loss: {margin: 2}}")).training.loss.margin
    assert value == 2.0 and isinstance(value, float)


@pytest.mark.integration
def test_importing_the_module_does_not_import_tensorflow():
    code = "import sys, training.config; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=CONFIGS.parent).returncode == 0


class TestSettingsOfOneReader:
    @pytest.mark.parametrize(
        ("setting", "reader"),
        [
            ("configuration=standard_81", "nus_wide"),
            ("unlabelled=drop", "nus_wide"),
            ("unseen_classes=released", "open_images"),
            ("machine_confidence=0.7", "open_images"),
            ("zero_shot_split=coco_48_17", "tfds"),
            ("absent_feature=neg_category_ids", "tfds"),
        ],
    )
    def test_are_refused_with_another(self, setting, reader):
        key, _, value = setting.partition("=")
        needed = ["data.builder=lvis", "data.label_feature=objects.label"]
        needed = needed if reader == "tfds" else []
        config = load_config(None, [f"data.name={reader}", *needed, f"data.{setting}"])
        assert str(getattr(config.data.settings, key)) == value
        message = message_of(None, f"data.{setting}")
        assert f"data.{key}" in message and f"it is a setting of {reader}" in message

    def test_at_their_defaults_are_read_as_earlier_runs_wrote_them(self, write):
        path = write(
            "data: {name: folder, directory: d, pictures: 3000, seed: 0, unlabelled: keep,"
            " machine_confidence: null, builder: null, label_feature: null}\n"
        )
        config = load_config(path)
        assert config.data == DataConfig("folder", "d")
        assert "pictures" not in config_to_yaml(config)

    def test_of_tfds_are_needed_there(self):
        name = "data.name=tfds"
        assert "data.builder" in message_of(None, name, "data.label_feature=objects.label")
        message = message_of(None, name, "data.builder=coco/2017")
        assert "data.label_feature" in message and "for example objects.label" in message

    def test_have_their_own_values(self):
        nus_wide = "data.name=nus_wide"
        assert "standard_81" in message_of(None, nus_wide, "data.configuration=standard_80")
        for value in ("0", "1.5"):
            message = message_of(None, "data.name=open_images", f"data.machine_confidence={value}")
            assert "above 0 and at most 1" in message


def test_figures_weighted_by_frequency_can_choose_the_epoch():
    config = load_config(None, ["training.select_on=gzsl_weighted_mAP"])
    assert config.training.select_on == "gzsl_weighted_mAP"
    config = load_config(CONFIGS / "open_images_paper.yaml", ["data.directory=photos"])
    assert config.training.select_on == "seen_weighted_mAP"
