"""A setting that is text takes what is written; `~` is the home folder."""

import pathlib

import pytest
from config_errors import message_of

from training.config import config_to_yaml, load_config

pytestmark = pytest.mark.unit

TEXTS = [
    "photos/trip #3", "#3", "2024", "2024-05-01", "2024-13-99", "no", "on", "12:30", "1e3", "010",
    "1_000", "0x1f", ".nan", "a: b", "a:", "- a", "[x]", "[x", "{x}", "*x", "&x", "!x", "%x", "@x",
    "`x`", "|", "> x", "? x", "'tis", 'a "b"', "it's", "'a' and 'b'", "C:\\photos", "true", "=",
    "a=b", "null.txt", "ünï/\u00e9", "a, b", "photos ",
]  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize(
    "key", ["data.directory", "output", "vocabulary.word_vectors", "backbone.weights"]
)
def test_an_option_takes_text_as_it_is(key, text):
    config = load_config(None, [f"{key}={text}"])
    section, _, name = key.rpartition(".")
    assert getattr(getattr(config, section) if section else config, name) == text.strip()


@pytest.mark.parametrize("text", TEXTS)
def test_what_an_option_gave_is_read_back_from_the_file_of_the_run(text, write):
    config = load_config(None, [f"data.directory={text}", f"output={text}"])
    assert load_config(write(config_to_yaml(config))) == config


@pytest.mark.parametrize(
    ("quoted", "text"),
    [("'2024'", "2024"), ('"a #b"', "a #b"), ("' a '", " a "), ("'it''s'", "it's"), ("''", "")],
)
def test_quotes_around_the_whole_value_are_those_of_yaml(quoted, text):
    assert load_config(None, [f"data.directory={quoted}"]).data.directory == text


def test_a_quoted_null_is_the_name_of_a_folder():
    assert load_config(None, ["data.directory='null'"]).data.directory == "null"
    assert load_config(None, ["data.directory=null"]).data.directory is None
    assert load_config(None, ["data.directory="]).data.directory is None


@pytest.mark.parametrize("text", ["2024", "2024-05-01", "2024-13-99", "no", "12:30", "010", "1e3"])
def test_a_file_need_not_quote_text_that_looks_like_a_number_or_a_date(text, write):
    config = load_config(write(f"data: {{name: folder, directory: {text}}}\noutput: {text}\n"))
    assert config.data.directory == config.output == text


def test_an_option_replaces_a_part_of_a_section_that_another_gave():
    options = ["data={name: folder, directory: 2024-05-01}", "data.cache=memory"]
    config = load_config(None, options)
    assert (config.data.directory, config.data.cache) == ("2024-05-01", "memory")


def test_text_that_yaml_takes_for_something_else_is_said_to_need_quotes(write):
    for text in ("a: b", "@x", "*x", "!x"):
        assert "needs quotes" in message_of(write(f"output: {text}\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training: {epochs: 0:10}", "training.epochs: expected a whole number, got '0:10'"),
        ("training: {seed: 010}", "training.seed: expected a whole number, got '010'"),
        ("training: {epochs: 2024-05-01}", "expected a whole number, got datetime.date(2024"),
        ("training: {epochs: 2024-13-99}", "expected a whole number, got '2024-13-99'"),
    ],
)
def test_a_number_that_yaml_would_read_as_another_is_refused(text, message, write):
    assert message in message_of(write(text))


@pytest.mark.parametrize(
    "key",
    ["data.directory", "data.feature_store", "backbone.weights", "vocabulary.word_vectors"],
)
def test_a_tilde_at_the_beginning_is_the_home_folder(key, write, monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    section, _, name = key.partition(".")
    frozen = ["backbone.name=vgg19", "backbone.trainable=false"]
    config = load_config(None, [*frozen, f"{key}=~/a/~b"])
    assert getattr(getattr(config, section), name) == "/home/someone/a/~b"
    config = load_config(write(f"{section}: {{{name}: ~/a}}"), frozen)
    assert getattr(getattr(config, section), name) == "/home/someone/a"
    root = pathlib.Path("~root").expanduser()
    assert getattr(getattr(load_config(None, [*frozen, f"{key}=~root/a"]), section), name) == (
        f"{root}/a"
    )
    assert load_config(None, ["output=a/~/b"]).output == "a/~/b"
    assert load_config(None, ["data.directory=~"]).data.directory == "/home/someone"


RUN_OF_0_1 = """\
data: {name: folder, directory: photos, feature_store: null, cache: auto, pictures: 90, seed: 7,
  max_broken_share: 0.0, configuration: standard_81, machine_confidence: 0.5, builder: lvis}
backbone: {name: small}
head: {system: biam, preset: paper}
vocabulary: {word_vectors: null}
training: {epochs: 3}
strategy: default
output: runs/a
"""


def test_the_file_of_an_early_run_may_hold_settings_of_other_data_sets(write):
    path = write(RUN_OF_0_1)
    config = load_config(path)
    assert (config.data.name, config.data.directory, config.data.settings) == (
        "folder",
        "photos",
        None,
    )
    assert "it is a setting of scenes" in message_of(path, "data.pictures=80")
    assert "it is a setting of scenes" in message_of(write("data: {name: folder, pictures: 90}"))
