"""`serving.predict --beam`: the same bytes as without it."""

import pytest

from serving import predict


def test_a_pipeline_writes_the_same_bytes(finished, photos, tmp_path, cache, monkeypatch, capsys):
    pytest.importorskip("apache_beam")
    from serving.prediction import beam_tagging

    monkeypatch.setattr(beam_tagging, "_BATCHES_OF_A_PART", 1)
    command = [str(photos), "--model", str(finished.path), "--again"]

    def outputs(name, *options):
        files = [tmp_path / f"{name}.{ending}" for ending in ("csv", "jsonl")]
        arguments = [*command, "--csv", str(files[0]), "--jsonl", str(files[1]), *options]
        assert predict.main(arguments) == 1  # one is broken
        return [file.read_bytes() for file in files]

    expected = outputs("local")
    assert len(expected[0].splitlines()) > 20
    assert outputs("beam", "--beam") == expected
    assert list(cache.rglob("*.parts")) == []
    assert predict.main([*command, "--beam-options=--runner=NoSuchRunner"]) == 2
    assert "add --beam" in capsys.readouterr().err
