"""Time, memory and disk of a whole run, estimated from a trial run on a sample."""

import dataclasses
from collections.abc import Mapping

from training.loop import checkpoints

# Of estimates on an idle machine; docs/early_answers.md compares some with whole runs.
_INACCURACY = 0.2


@dataclasses.dataclass(frozen=True)
class Workload:
    """How much a run has to do.

    Attributes:
        photos: number of photos of all splits, each counted once.
        photos_to_extract: photos whose features are not stored yet; 0 for a trained backbone.
        photos_to_read: photos (features or pixels) that are read into memory at the beginning.
        epochs: of the training.
        steps_per_epoch: training steps per epoch.
        batch_size: photos per step.
        validation_photos: photos that are scored after every epoch.
        test_photos: photos that are scored at the end.
        fold_steps: training steps of each held-out fold; empty without folds.
        fold_epochs: epochs of each.
    """

    photos: int
    photos_to_extract: int
    photos_to_read: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    validation_photos: int
    test_photos: int
    fold_steps: tuple[int, ...] = ()
    fold_epochs: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured times in seconds.

    Attributes:
        setup: reading settings, data set and vocabulary, and building the models.
        check_photo: decoding a photo completely, to check it.
        first_extraction: the first batch of the backbone, including compilation.
        extract_photo: computing and writing the features of a photo.
        read_photo: reading the features or pixels of a photo into memory.
        first_step: the first training step, including compilation.
        step: a later training step, including its data.
        first_score: additional time of the first scoring, for compilation.
        score_photo: scoring a photo over all classes.
        validation_metrics: computing the metrics of one validation.
        test_metrics: computing the metrics of the test split.
        epoch_end: writing the models and a checkpoint.
        finish: reading the run back, and drawing its pictures.
    """

    setup: float
    check_photo: float
    first_extraction: float
    extract_photo: float
    read_photo: float
    first_step: float
    step: float
    first_score: float
    score_photo: float
    validation_metrics: float
    test_metrics: float
    epoch_end: float
    finish: float


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Measured or computed sizes in bytes.

    Attributes:
        dry_run_peak: peak resident memory of the dry run.
        sample: memory of the examples of the dry run.
        photo: memory of one photo's features or pixels.
        score_rows: memory of scores and metrics of all test photos, beyond the dry run's.
        store_photo: one photo's features on the disk.
        checkpoint: one checkpoint, including copies of the models.
        run_folder: the folder of the trial run without its checkpoints.
    """

    dry_run_peak: int
    sample: int
    photo: int
    score_rows: int
    store_photo: int
    checkpoint: int
    run_folder: int


def estimate_seconds(work: Workload, costs: Costs) -> dict[str, float]:
    """Returns the seconds of every part of a run, in order."""
    extracted = work.photos_to_extract
    steps = work.epochs * work.steps_per_epoch
    validation = work.validation_photos * costs.score_photo + costs.validation_metrics
    parts = {
        "set up": costs.setup,
        "features": extracted * (costs.check_photo + costs.extract_photo)
        + (costs.first_extraction if extracted else 0.0),
        "reading": work.photos_to_read * costs.read_photo,
        "first step": costs.first_step,
        "training": (steps - 1) * costs.step,
        "validation": work.epochs * validation if work.validation_photos else 0.0,
        "saving": work.epochs * costs.epoch_end,
        # The validation photos are scored again, to fit thresholds.
        "test": (work.test_photos + work.validation_photos) * costs.score_photo
        + costs.first_score
        + costs.test_metrics
        + costs.finish,
    }
    if work.fold_steps:
        parts["held-out folds"] = (
            len(work.fold_steps)
            * (costs.first_step + costs.first_score + work.validation_photos * costs.score_photo)
            + sum(work.fold_steps) * costs.step
            + sum(work.fold_epochs) * costs.epoch_end
        )
    return parts


def likely_range(seconds: float, others_share: float) -> tuple[float, float]:
    """Returns the shortest and the longest time that a run will likely take.

    Args:
        seconds: the estimate, from times that were measured now.
        others_share: share of the processors' time that other programs had meanwhile. They may be
            gone during the run, which then takes as much less time.
    """
    return seconds * (1 - _INACCURACY) * (1 - others_share), seconds * (1 + _INACCURACY)


def estimate_memory(work: Workload, sizes: Sizes) -> int:
    """Returns the peak resident memory of a run in bytes.

    This is the peak of the dry run with the examples of the run in place of the sample. It is
    rather too large than too small, because the peaks of the parts need not coincide.
    """
    held = work.photos_to_read * sizes.photo
    return sizes.dry_run_peak - sizes.sample + max(held, sizes.sample) + sizes.score_rows


def estimate_disk(work: Workload, sizes: Sizes) -> tuple[int, int]:
    """Returns the bytes that the feature store and the run's folder still need.

    A checkpoint is written before the oldest one is removed.
    """
    store = work.photos_to_extract * sizes.store_photo
    return store, sizes.run_folder + (checkpoints.KEPT + 1) * sizes.checkpoint


def duration(seconds: float) -> str:
    """Returns seconds as text: `8.4 s`, `95 s`, `12 min`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(nbytes: float) -> str:
    """Returns bytes as text in MB, or in GB from 1000 MB on."""
    return f"{nbytes / 1e6:.0f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.1f} GB"


@dataclasses.dataclass(frozen=True)
class Room:
    """Memory and disk of this machine, in bytes.

    Attributes:
        memory: total memory.
        memory_free: memory that other processes leave free now.
        store_disk: free space for the feature store; None: it is not on a disk of this machine.
        run_disk: free space for the run's folder.
        one_disk: whether both are on the same disk.
        gpus: peak memory of each GPU during the dry run.
    """

    memory: int
    memory_free: int
    store_disk: int | None
    run_disk: int
    one_disk: bool
    gpus: Mapping[str, int]


def shortages(memory: int, store: int, folder: int, room: Room) -> list[str]:
    """Returns a sentence for each shortage, with a remedy.

    Args:
        memory: expected peak of the run.
        store: bytes that the feature store still needs.
        folder: bytes that the run's folder still needs.
        room: memory and disk of this machine.
    """
    found = []
    if memory > room.memory:
        found.append(
            f"memory: the run needs about {size(memory)}, this machine has {size(room.memory)}; "
            "set data.cache=stream, or a smaller training.batch_size or head.channels"
        )
    elif memory > room.memory_free:
        found.append(
            f"memory: the run needs about {size(memory)}, only {size(room.memory_free)} of "
            f"{size(room.memory)} are free now; close other programs, or set data.cache=stream"
        )
    if room.one_disk and store and store + folder > room.run_disk:
        found.append(
            f"disk: feature store and run need {size(store + folder)}, {size(room.run_disk)} are "
            "free; set output or data.feature_store to another disk"
        )
        return found
    if room.store_disk is not None and store > room.store_disk:
        found.append(
            f"disk: the feature store needs {size(store)}, {size(room.store_disk)} are free; set "
            "data.feature_store to another disk"
        )
    if folder > room.run_disk:
        found.append(
            f"disk: the run's folder needs {size(folder)}, {size(room.run_disk)} are free; set "
            "output to another disk"
        )
    return found
