"""From what a sample took to what a run will take: time, memory and disk."""

import dataclasses
from collections.abc import Mapping

from training.loop import checkpoints


@dataclasses.dataclass(frozen=True)
class Workload:
    """How much a run has to do.

    Attributes:
        photos: of all splits, each counted once.
        photos_to_extract: whose features are not stored yet; 0 for a trained backbone.
        photos_to_read: read into memory in the beginning (features or pixels), or 0.
        epochs: of the training.
        steps_per_epoch: training steps of an epoch.
        batch_size: photos of a step.
        validation_photos: scored after every epoch.
        test_photos: scored in the end.
    """

    photos: int
    photos_to_extract: int
    photos_to_read: int
    epochs: int
    steps_per_epoch: int
    batch_size: int
    validation_photos: int
    test_photos: int


@dataclasses.dataclass(frozen=True)
class Costs:
    """What was measured, in seconds.

    Attributes:
        setup: settings, data set, vocabulary and models, until the first photo.
        check_photo: a photo decoded to its end, before the backbone sees it.
        first_extraction: the backbone's first batch, compilation included.
        extract_photo: a photo's features, computed and written.
        read_photo: one photo's features or pixels into memory.
        first_step: the first training step, compilation included.
        step: a later training step, its data included.
        first_score: what the first scoring takes more than a later one.
        score_photo: a photo's scores over all classes.
        validation_metrics: the figures of one validation.
        test_metrics: the figures on the test split.
        epoch_end: the models and a checkpoint written.
        finish: the run read back, and its pictures.
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
    """What was measured or follows from shapes, in bytes.

    Attributes:
        dry_run_peak: largest resident memory of the dry run.
        sample: examples that the dry run held in memory.
        photo: one photo's features or pixels in memory.
        score_rows: what scores and figures of all test photos take beyond the dry run's.
        store_photo: one photo's features on the disk.
        checkpoint: one checkpoint, copies of the models included.
        run_folder: the sample's run folder without its checkpoints.
    """

    dry_run_peak: int
    sample: int
    photo: int
    score_rows: int
    store_photo: int
    checkpoint: int
    run_folder: int


def estimate_seconds(work: Workload, costs: Costs) -> dict[str, float]:
    """Returns the seconds of every part of a run, in its order."""
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
        # Thresholds are fitted to the scores of the validation photos, which the run scores again.
        "test": (work.test_photos + work.validation_photos) * costs.score_photo
        + costs.first_score
        + costs.test_metrics
        + costs.finish,
    }
    return parts


def estimate_memory(work: Workload, sizes: Sizes) -> int:
    """Returns the largest resident memory of a run in bytes.

    The dry run's own peak, with what the run holds in memory in place of the sample. Peaks of
    different parts of a run need not meet, so that this is rather too much than too little.
    """
    held = work.photos_to_read * sizes.photo
    return sizes.dry_run_peak - sizes.sample + max(held, sizes.sample) + sizes.score_rows


def estimate_disk(work: Workload, sizes: Sizes) -> tuple[int, int]:
    """Returns the bytes that the feature store and the run's folder still need.

    A checkpoint is written before the oldest one goes.
    """
    store = work.photos_to_extract * sizes.store_photo
    return store, sizes.run_folder + (checkpoints.KEPT + 1) * sizes.checkpoint


def duration(seconds: float) -> str:
    """Returns seconds as a person would say them: `8.4 s`, `95 s`, `12 min`, `3 h 20 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(nbytes: float) -> str:
    """Returns bytes as MB, from 1000 MB on as GB."""
    return f"{nbytes / 1e6:.0f} MB" if nbytes < 1e9 else f"{nbytes / 1e9:.1f} GB"


@dataclasses.dataclass(frozen=True)
class Room:
    """What this machine has, in bytes.

    Attributes:
        memory: all of it.
        memory_free: what other processes leave now.
        store_disk: free where the feature store goes; None: on no disk of this machine.
        run_disk: free where the run's folder goes.
        one_disk: whether both are the same disk.
        gpus: largest number of bytes in use on each GPU during the dry run.
    """

    memory: int
    memory_free: int
    store_disk: int | None
    run_disk: int
    one_disk: bool
    gpus: Mapping[str, int]


def shortages(memory: int, store: int, folder: int, room: Room) -> list[str]:
    """Returns a sentence for everything that will not suffice.

    Args:
        memory: expected peak of the run.
        store: bytes that the feature store still needs.
        folder: bytes that the run's folder still needs.
        room: what there is.
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
            f"{size(room.memory)} are free now; end other programs, or set data.cache=stream"
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
