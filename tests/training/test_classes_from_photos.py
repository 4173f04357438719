"""`python -m training.embed_classes --from-photos`."""

import shutil

import numpy as np
import pytest

from biam_tf import Tagger
from biam_tf.vocabulary import Vocabulary
from training.data.imports.example_photos import read_examples
from training.embed_classes import main

pytestmark = pytest.mark.integration


def test_classes_are_learned_from_photos_in_folders(finished, scenes, tmp_path, capsys):
    pictures = sorted((scenes / "images").rglob("*.*"))
    folder, output = tmp_path / "examples", tmp_path / "mine.npz"
    examples = {}
    for name, photos in (("my cat", pictures[:2]), ("our dog", pictures[2:5])):
        inner = folder / name / "more"
        inner.mkdir(parents=True)
        examples[name] = [shutil.copy(photo, inner) for photo in photos]
        (inner / "notes.txt").write_text("no photo")
    command = ["--from-photos", str(folder), str(output), "--model", str(finished.path)]
    own = Vocabulary.load(finished.vocabulary).names[0]
    options = ["--others", str(scenes / "images"), "--like", f"my cat={own}"]
    assert main([*command, *options]) == 0
    assert "my cat: 2 photos\n  our dog: 3 photos" in capsys.readouterr().out
    found = Vocabulary.load(output)
    tagger = Tagger.load(finished.path)
    expected = tagger.learn_classes(examples, others=pictures, like={"my cat": own})
    assert found.names == ("my cat", "our dog")
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-6)

    for arguments, message in (
        ([*command, "--like", "my kat=dog"], "no class 'my kat'; did you mean 'my cat'?"),
        ([*command, "--source", "minilm"], "--source has no effect with --from-photos"),
        (command[:3], "give the model, --model DIR or --preset NAME"),
        ([str(folder), str(output), "--others", "x"], "--others is about --from-photos"),
        (["--from-photos", str(tmp_path / "no"), *command[2:]], "no such folder"),
        (["--from-photos", str(folder / "my cat" / "more"), *command[2:]], "it has no folders"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_data_set_has_examples_and_others(scenes):
    from training.data.folder.reader import read_folder

    dataset = read_folder(scenes)
    name, split = dataset.names[2], dataset.split("train")
    examples, others = read_examples(scenes, [name])
    shown = np.asarray(split.labels)[:, 2] == 1
    paths = np.array([str(scenes / image) for image in split.images])
    assert list(map(str, examples[name])) == paths[shown].tolist() and shown.any()
    assert list(map(str, others)) == paths[~shown].tolist()
