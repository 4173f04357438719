"""The code a reader copies from README.md runs as it stands."""

import pathlib
import re

import keras
import numpy as np

README = pathlib.Path(__file__).parents[1] / "README.md"


def test_the_python_examples_run_and_the_model_is_saved_and_loaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert names["scores"].shape == (2, 1006)
    again = keras.models.load_model("tagger.keras")
    np.testing.assert_allclose(
        again.predict(names["photos"], verbose=0),
        names["model"].predict(names["photos"], verbose=0),
        atol=1e-6,
    )
