"""What a model card says, without an export."""

import types

import pytest

from serving.graph.assets import _figures

pytestmark = pytest.mark.unit


def test_names_are_shown_as_they_are_written():
    names = ("dog", "[free](http://evil.example)", "<img src=x>")
    vocabulary = types.SimpleNamespace(names=names, groups=("seen",) * 3)
    lines = _figures(types.SimpleNamespace(vocabulary=vocabulary), None)
    assert r"- 3 seen: dog, \[free\](http\://evil.example), \<img src=x\>" in lines
