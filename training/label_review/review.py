"""Reviews the training labels of a run, and applies the corrections."""

import pathlib
from collections import Counter
from collections.abc import Sequence

from biam_tf.command_line import command_to_paste
from biam_tf.errors import UserError
from biam_tf.models.systems import SYSTEMS
from biam_tf.runs import TrainedRun, load_run
from training.cli import require_one_process
from training.config import RunConfig, load_config
from training.data.folder.corrections import PRESENT, write_corrected
from training.data.folder.reader import ANNOTATIONS
from training.data.registry import load_dataset
from training.label_review.doubts import rank_doubts
from training.label_review.files import (
    ListedDoubt,
    ReviewPaths,
    listed,
    read_doubts,
    write_doubts,
    write_page,
)
from training.label_review.folds import (
    FoldScores,
    PhotoFold,
    plan_photo_folds,
    score_seen,
    scores_of_folds,
)
from training.loop.stopping import terminating_cleanly
from training.pipeline.examples import Examples, open_dataset, open_examples
from training.pipeline.run_folder import RunFolder

_PRINTED = 10


def review_labels(run: pathlib.Path, folds: int, most: int) -> None:
    """Finds the training labels that are doubted most, and writes them as a list and a page.

    Args:
        run: folder of a trained run.
        folds: of the training photos.
        most: number of labels.

    Raises:
        UserError: the run or its data cannot be used, the data are others than those of the run,
            or the list of an earlier review has corrections that would be lost.
    """
    folder, paths = RunFolder(run), ReviewPaths(run)
    config = load_config(folder.config)
    require_one_process(config, "a review")
    with folder.training_here(), terminating_cleanly():
        trained = load_run(run)
        dataset = open_dataset(config)
        folder.check_same_data(config, dataset, trained.vocabulary)
        examples = open_examples(config, run, dataset, trained.backbone)
        dataset = examples.dataset
        _keep_corrections(paths, examples)
        split = dataset.split("train")
        labels = split.labels.columns(dataset.seen)
        if SYSTEMS[config.head.system].trained:
            planned = plan_photo_folds(config, dataset, folds)
            print(_cost(folder, planned), flush=True)
            scores = scores_of_folds(config, run, paths.folds, planned, trained.vocabulary)
        else:  # nothing was learnt from these labels
            scores = iter([_untrained(trained, examples)])
        doubts = listed(rank_doubts(scores, labels, most), dataset, split)
        write_doubts(paths.doubts, doubts)
        apply = command_to_paste("training.review", run, "--apply", "CORRECTED.csv")
        write_page(paths.page, doubts, dataset, apply, trained.orientation)
    print(_found(doubts, paths, run))


def _untrained(run: TrainedRun, examples: Examples) -> FoldScores:
    import numpy as np

    images = examples.dataset.split("train").images
    scores = score_seen(run, examples, images, "scoring the training photos")
    return FoldScores(np.arange(len(images)), scores)


def _keep_corrections(paths: ReviewPaths, examples: Examples) -> None:
    """Raises a UserError if the list of an earlier review was worked on."""
    if not paths.doubts.exists():
        return
    done = sum(bool(own.corrected) for own in read_doubts(paths.doubts, examples.dataset))
    if done:
        raise UserError(
            f"{paths.doubts}: {done} labels are corrected there, which a new review would "
            "overwrite; apply them with --apply, then move or delete the file"
        )


def _cost(folder: RunFolder, folds: Sequence[PhotoFold]) -> str:
    share = sum(fold.share for fold in folds)
    text = (
        f"{len(folds)} short trainings, each without a part of the photos, which it scores then: "
        f"about {share:.1f} times the steps of the run's own training"
    )
    seconds = sum(record.get("seconds", 0) for record in folder.read_log())
    if seconds:
        text += f", which took {seconds:.0f} s by its log"
    return f"{text}. Ctrl-C keeps what is done; the same command goes on"


def _found(doubts: Sequence[ListedDoubt], paths: ReviewPaths, run: pathlib.Path) -> str:
    if not doubts:
        return "no label is known that could be doubted"
    wrong = sum(own.label == PRESENT for own in doubts)
    classes = Counter(own.name for own in doubts).most_common(5)
    width = max(len(own.image) for own in doubts[:_PRINTED])
    lines = [
        f"\nThe {len(doubts)} most doubted training labels: {wrong} that may be wrong, "
        f"{len(doubts) - wrong} that may be missing",
        f"Classes with most of them: {', '.join(f'{name} ({n})' for name, n in classes)}",
        "",
    ]
    for own in doubts[:_PRINTED]:
        given = "has the label" if own.label == PRESENT else "lacks the label"
        lines.append(
            f"{own.image.ljust(width)}  {given} {own.name}, which the model gives "
            f"{own.probability:.0f} %"
        )
    return "\n".join(
        [
            *lines,
            "",
            f"Look at {paths.page}, mark what is wrong and save the list; or fill the column "
            f"`corrected` of {paths.doubts} (present, absent, unknown). Then:",
            f"  {command_to_paste('training.review', run, '--apply', 'CORRECTED.csv')}",
            "The report shows the first ones after:",
            f"  {command_to_paste('training.report', run)}",
        ]
    )


def apply_corrections(
    run: pathlib.Path, corrected: pathlib.Path, output: pathlib.Path | None
) -> None:
    """Writes the data set's list of labels with the corrections; the data set stays as it is.

    Args:
        run: folder of the run whose labels were reviewed.
        corrected: the list of the review, with its column `corrected` filled in.
        output: the file to write; None: `review/annotations.csv` of the run.

    Raises:
        UserError: rows of the list are invalid, the labels are not in a CSV file, or there is a
            file at `output` already.
    """
    output = output or ReviewPaths(run).annotations
    if output.exists():
        raise UserError(f"{output} exists; give another file with --output, or remove it")
    config = load_config(RunFolder(run).config)
    dataset = load_dataset(config.data, look_for_photos=False)
    annotations = pathlib.Path(
        getattr(config.data.settings, "annotations", None) or dataset.directory / ANNOTATIONS
    )
    if not annotations.is_file():
        raise UserError(
            f"{dataset.directory}: its labels are not in a file {ANNOTATIONS} (data.name: "
            f"{config.data.name}); correct them where they come from"
        )
    doubts = [own for own in read_doubts(corrected, dataset) if own.corrected]
    if not doubts:
        raise UserError(
            f"{corrected}: no row is corrected; fill the column `corrected` with present or absent"
        )
    labels = {(own.image, own.name): own.corrected for own in doubts}
    changed = write_corrected(dataset.directory, annotations, labels, output)
    print(
        f"{output}: the labels of {annotations} with {changed} of them changed; {len(doubts)} were "
        f"looked at. {annotations} stays as it is"
    )
    print(_how_to_train(config, run, output))


def _how_to_train(config: RunConfig, run: pathlib.Path, annotations: pathlib.Path) -> str:
    if config.data.name != "folder":
        return (
            f"To train with them, use data.name: folder, data.directory: the folder of the photos, "
            f"and data.annotations: {annotations}"
        )
    command = command_to_paste(
        "training.run",
        *("--config", run / "config.yaml", "--set", f"data.annotations={annotations}"),
        *("--set", f"output={run}-corrected"),
    )
    return f"Train with them:\n  {command}"
