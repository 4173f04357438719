import re
from xml.etree import ElementTree

import numpy as np
import pytest

from biam_tf.metrics import average_precision
from biam_tf.metrics.reliability import reliability_of_shown
from biam_tf.metrics.stacking import seen_unseen_curve
from training.data.dataset import Split
from training.loop.tensorboard import TensorBoardWriter, read_scalar
from training.report import figures
from training.report.region_features import choose_classes, share_of_like_neighbors
from training.tables.svg_charts import MAX_POINTS, Chart, scatter

pytestmark = pytest.mark.unit


def elements(markup, tag: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(markup).findall(f".//{tag}")


def test_a_chart_places_points_within_its_axes():
    chart = Chart("label", "x", "y", (0, 10), (0, 1))
    chart.line([0, 10], [0, 1], "seen")
    (line,) = elements(chart.markup(), "polyline")
    assert line.get("points") == "46,198 348,12"  # left at the bottom, right at the top
    assert line.get("class") == "line seen"


def test_ticks_are_round_numbers_in_per_cent_where_asked():
    chart = Chart("label", "x", "y", (0, 3), (0, 1), per_cent="y", whole_x=True)
    ticks = [e.text for e in elements(chart.markup(), "text") if e.get("class") == "tick"]
    assert ticks == ["0", "25", "50", "75", "100", "0", "1", "2", "3"]


def test_text_never_becomes_markup():
    name = '<script>alert("&")</script>'
    chart = Chart(name, name, name, (0, 1), (0, 1))
    chart.dot(0.5, 0.5, "seen", name)
    plane, _ = scatter(np.array([[0.0, 1.0], [1.0, 0.0]]), [0, 0], [name], name)
    for markup in (chart.markup(), plane):
        assert "<script" not in markup
        assert ElementTree.fromstring(markup).get("aria-label") == name


def test_long_lines_keep_their_course_with_fewer_points():
    chart = Chart("label", "x", "y", (0, 9999), (0, 1))
    chart.line(np.arange(10000), np.full(10000, 0.5), "quiet")
    (line,) = elements(chart.markup(), "polyline")
    points = [tuple(map(float, p.split(","))) for p in line.get("points").split()]
    assert len(points) == MAX_POINTS and {y for _, y in points} == {105.0}


def test_a_chart_of_one_value_has_room_around_it():
    chart = Chart("label", "x", "y", (0, 1), (3, 3))
    chart.line([0, 1], [3, 3], "seen")
    assert "nan" not in chart.markup() and "inf" not in chart.markup()


def test_the_area_under_precision_at_each_positive_is_the_average_precision(rng):
    scores = rng.normal(size=40).round(1)
    labels = rng.choice([-1, 0, 1], size=40)
    recall, precision = figures.precision_recall(scores, labels)
    steps = np.diff(np.r_[0, recall])
    assert steps @ precision == pytest.approx(
        average_precision(scores[:, None], labels[:, None])[0]
    )


def test_curves_are_of_the_best_middle_and_worst_class_of_the_commoner_half():
    aps = np.array([0.1, 0.9, 0.5, 0.3, 0.7, 1.0])
    positives = np.array([10, 10, 10, 10, 10, 1])
    groups = ["seen"] * 6
    assert figures.chosen_classes(aps, positives, groups) == [1, 2, 0]
    groups = ["seen"] * 4 + ["unseen"] * 2
    assert figures.chosen_classes(aps, positives, groups) == [4, 1, 3, 0]
    assert figures.chosen_classes(aps, np.zeros(6, int), groups) == []


def test_the_diagram_of_reliability_is_of_the_tags_shown(rng):
    scores = rng.normal(size=(500, 3)) - 1
    labels = np.where(rng.random((500, 3)) < 1 / (1 + np.exp(-2 * scores)), 1, -1)
    twos, zeros = np.full(3, 2.0), np.zeros(3)
    groups = ["seen", "seen", "unseen"]
    found = reliability_of_shown(scores, labels, groups, twos, zeros, zeros)
    shown = figures.reliability_figure(found)
    tips = re.findall(r"(seen|unseen): (\d+) tags with", shown.chart)
    counts = {group: sum(int(n) for g, n in tips if g == group) for group in ("seen", "unseen")}
    assert counts["unseen"] == (scores[:, 2] >= 0).sum() and counts["seen"] > counts["unseen"]
    nothing = figures.reliability_figure({"seen": found["seen"], "unseen": None})
    assert "unseen:" not in nothing.chart


def test_the_curve_of_stacking_marks_what_a_constant_gives(rng):
    groups = ["seen"] * 5 + ["unseen"] * 3
    scores, labels = rng.normal(size=(30, 8)), rng.choice([-1, 1], size=(30, 8))
    curve = seen_unseen_curve(scores, labels, groups, 3)
    figure = figures.stacking_figure(curve, 0.5)
    tips = [title.text for title in elements(figure.chart, "title")]
    assert len(tips) == 2 and tips[1].startswith("0.5 subtracted: ")
    seen, unseen = curve.at(0.5)
    assert re.findall(r"[\d.]+", tips[1])[1:] == [f"{100 * seen:.1f}", f"{100 * unseen:.1f}"]
    assert f"{curve.area:.3f}" in figure.note


def few_photos(labels) -> Split:
    return Split(tuple(f"{i}.jpg" for i in range(len(labels))), np.array(labels, np.int8))


def test_region_features_are_of_classes_with_photos_of_their_own():
    both = [[1, 1, -1, -1]] * 9  # class 1 never stands alone
    alone = [[1, -1, -1, -1]] * 3 + [[-1, -1, 1, -1]] * 4 + [[-1, -1, -1, 1]]
    chosen = choose_classes(few_photos(both + alone), ["unseen"] * 4)
    assert chosen.tolist() == [0, 2]
    # Too few unseen classes: all of them.
    chosen = choose_classes(few_photos(both + alone), ["seen", "seen", "unseen", "seen"])
    assert chosen.tolist() == [0, 2]


def test_neighbours_are_compared_by_angle():
    features = np.array([[1, 0], [9, 0.1], [0, 1], [0.1, 9]])
    assert share_of_like_neighbors(features, np.array([0, 0, 1, 1])) == 1
    assert share_of_like_neighbors(features, np.array([0, 1, 0, 1])) == 0


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(5e-4, ["0", "2e-4", "4e-4"]), (2500, ["0", "1000", "2000"]), (-3, ["-3", "-2", "-1", "0"])],
)
def test_ticks_stay_short(highest, expected):
    limits = (min(0, highest), max(0, highest))
    chart = Chart("label", "x", "y", (0.2, 0.3), limits)
    texts = [e.text for e in elements(chart.markup(), "text") if e.get("text-anchor") == "end"]
    assert texts == expected


def test_the_point_of_any_threshold_lies_on_the_curve(rng):
    scores, labels = rng.normal(size=60), rng.choice([-1, 1], p=[0.8, 0.2], size=60)
    xs, ys = figures._with_falls(*figures.precision_recall(scores, labels))
    for cut in np.sort(scores)[:-1]:
        given = scores >= cut
        right = (given & (labels > 0)).sum()
        recall, precision = right / (labels > 0).sum(), right / given.sum()
        at_recall = ys[np.isclose(xs, recall)]
        if 0 < recall < 1:
            assert at_recall.min() - 1e-9 <= precision <= at_recall.max() + 1e-9


def test_names_of_a_scatter_plot_stand_in_its_legend_and_cover_no_point():
    points = np.array([[0.0, 1.0], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    plane, legend = scatter(points, [0, 0, 1, 1, 2], ["alpha", "beta", "gamma"], "label")
    assert not elements(plane, "text")
    assert [(key.css, key.name) for key in legend] == [
        ("c0", "alpha"),
        ("c1", "beta"),
        ("c2", "gamma"),
    ]
    assert len({key.sign for key in legend}) == 3
    drawn = [e.get("class") for tag in ("circle", "polygon") for e in elements(plane, tag)]
    assert sorted(drawn) == ["c0", "c0", "c1", "c1", "c2"]


def record(epoch: int, **more) -> dict:
    loss = {"epoch": epoch, "step": 4 * epoch, "loss": 1 / epoch, "learning_rate": 0.1 / epoch}
    return loss | {"images_per_second": 10.0 * epoch, "best_epoch": 1} | more


def drawn_lines(figure: figures.Figure) -> dict[str, int]:
    """Points of each line of a chart, by its CSS classes."""
    lines = elements(figure.chart, "polyline")
    return {line.get("class"): len(line.get("points").split()) for line in lines}


def test_every_entry_of_a_legend_is_drawn_and_every_line_of_several_has_an_entry(rng):
    validation = [{"seen": 0.5, "gzsl": 0.4}, {"seen": 0.6, "gzsl": 0.5}]
    records = [record(epoch + 1, validation=validation[epoch]) for epoch in range(2)]
    steps = np.arange(1, 9), np.linspace(1, 0, 8)
    shown = figures.learning_curves(records, steps, steps)
    scores, labels = rng.normal(size=(60, 4)), rng.choice([-1, 1], size=(60, 4))
    names, groups = list("abcd"), ["seen", "seen", "unseen", "unseen"]
    aps = average_precision(scores, labels)
    shown += figures.precision_recall_figures(scores, labels, names, groups, aps, None)
    curve = seen_unseen_curve(scores, labels, groups, 3)
    shown.append(figures.stacking_figure(curve, 0.5))
    ones, zeros = np.ones(4), np.zeros(4)
    found = reliability_of_shown(scores, labels, groups, ones, zeros, zeros)
    shown.append(figures.reliability_figure(found))
    for figure in shown:
        lines = {css.removeprefix("line ") for css in drawn_lines(figure)}
        dots = {e.get("class") for e in elements(figure.chart, "circle")}
        for key in figure.legend:
            assert key.css in (lines if key.kind == "line" else dots), (figure.title, key)
        if len(lines) > 1:
            assert lines <= {key.css for key in figure.legend}, figure.title
    # No unseen class was validated, and none is in the legend.
    validated = next(figure for figure in shown if figure.title == "Validation mAP")
    assert [key.name for key in validated.legend] == ["seen classes", "all classes"]


def test_report_and_tensorboard_show_the_same_curves(tmp_path):
    more = {
        "validation": {"seen": 0.5, "zsl": 0.25},
        "validation_weighted": {"seen": 0.75, "zsl": 0.5},
    }
    records = [record(epoch, **more) for epoch in (1, 2)]
    writer = TensorBoardWriter(tmp_path)
    for epoch in (1, 2):
        for step in range(4 * epoch - 3, 4 * epoch + 1):
            writer.step(step, {"loss": 1 / step, "learning_rate": 0.1 / step})
        writer.epoch(records[epoch - 1])
    scalars = [read_scalar(tmp_path, tag) for tag in ("training/loss", "training/learning_rate")]
    shown = figures.learning_curves(records, *scalars)
    tags = [tag for figure in shown for tag in figure.tags]
    assert set(tags) == {
        *("training/loss", "training/loss_of_epoch", "training/learning_rate"),
        *("training/images_per_second", "validation/seen_mAP", "validation/zsl_mAP"),
        *("validation/seen_weighted_mAP", "validation/zsl_weighted_mAP"),
    }
    for tag in tags:
        assert len(read_scalar(tmp_path, tag)[0]) == (8 if tag in tags[:3:2] else 2), tag
    by_title = {figure.title: drawn_lines(figure) for figure in shown}
    assert by_title["Loss"] == {"line quiet": 8, "line all": 2}
    assert by_title["Validation weighted mAP"] == {"line seen": 2, "line unseen": 2}
    assert by_title["Photos per second"] == {"line all": 2}
    # Without event files, the log alone: means of epochs.
    nothing = np.zeros(0), np.zeros(0)
    assert drawn_lines(figures.learning_curves(records, nothing, nothing)[0]) == {"line all": 2}
