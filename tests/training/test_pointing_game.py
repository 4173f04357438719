import numpy as np
import pytest

from biam_tf.errors import UserError
from training import pointing_game
from training.scoring.localization import Localization, measure_run, play, read_boxes


def test_the_strongest_region_hits_where_its_center_lies_in_a_box():
    response_map = np.zeros((2, 4))
    response_map[1, 2] = 1.0  # center (50, 15) of a photo of 80 by 20 pixels
    assert play(response_map, [(45, 10, 55, 20)], (80, 20)) == (True, 1 / 8)
    assert play(response_map, [(0, 0, 45, 20)], (80, 20)) == (False, 4 / 8)
    assert play(response_map, [(0, 0, 5, 5), (45, 10, 55, 20)], (80, 20)) == (True, 1 / 8)


def test_a_run_on_drawn_pictures_is_measured_by_group(finished, capsys):
    groups = measure_run(finished.path)
    assert set(groups) == {"seen", "unseen"}
    for own in groups.values():
        assert isinstance(own, Localization)
        assert 0 < own.chance < 0.5 and 0 <= own.hits <= 1 and own.pairs > 3
    assert pointing_game.main([str(finished.path)]) == 0
    assert f"{100 * groups['unseen'].hits:9.1f}" in capsys.readouterr().out


def test_boxes_that_are_missing_or_no_numbers_are_named(tmp_path):
    with pytest.raises(UserError, match=r"boxes.csv: no such file"):
        read_boxes(tmp_path)
    (tmp_path / "boxes.csv").write_text("image,class,x0,y0,x1,y1\na.png,dog,1,2,three,4\n")
    with pytest.raises(UserError, match=r"boxes.csv: expected .*three"):
        read_boxes(tmp_path)
