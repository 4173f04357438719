"""The findings of a dry run, and their text."""

import dataclasses
import functools

from training.dry_run.estimates import (
    Costs,
    Room,
    Sizes,
    Workload,
    duration,
    estimate_disk,
    estimate_memory,
    estimate_seconds,
    likely_range,
    shortages,
    size,
)

_NOTABLE_SHARE = 0.1


@dataclasses.dataclass(frozen=True)
class Findings:
    """The findings of a dry run.

    Attributes:
        output: the run's folder.
        classes: numbers of seen and unseen classes.
        parameters: number of parameters of backbone and head.
        trained_parameters: number of those that are trained.
        work: how much the run has to do.
        costs: seconds of its parts.
        sizes: bytes of its parts.
        room: memory and disk of this machine.
        others_share: share of the processors' time that other programs had during the dry run.
    """

    output: str
    classes: tuple[int, int]
    parameters: int
    trained_parameters: int
    work: Workload
    costs: Costs
    sizes: Sizes
    room: Room
    others_share: float = 0.0

    @functools.cached_property
    def shortages(self) -> list[str]:
        """A sentence for each shortage of memory or disk."""
        memory = estimate_memory(self.work, self.sizes)
        return shortages(memory, *estimate_disk(self.work, self.sizes), self.room)


def format_findings(findings: Findings) -> str:
    """Returns the text: size of the run, its time, memory and disk, and shortages."""
    lines = [
        f"dry run of {findings.output}: nothing was written there",
        f"{findings.work.photos} photos; {findings.classes[0]} seen and {findings.classes[1]} "
        f"unseen classes; {findings.parameters:,} parameters, {findings.trained_parameters:,} "
        "trained",
        "",
        *_time_lines(findings),
        "",
        *_memory_lines(findings),
        "",
        *_disk_lines(findings),
        "",
    ]
    lines += [f"WARNING: {shortage}" for shortage in findings.shortages] or [
        "memory and disk suffice"
    ]
    return "\n".join(lines)


def _time_lines(findings: Findings) -> list[str]:
    work, costs = findings.work, findings.costs
    seconds = estimate_seconds(work, costs)
    done = work.photos - work.photos_to_extract
    notes = {
        "set up": "data set, vocabulary, models",
        "features": f"{work.photos_to_extract} photos, {1000 * costs.check_photo:.1f} ms each to "
        f"check and {1000 * costs.extract_photo:.1f} ms to extract"
        + (f"; {done} are already stored" if done else ""),
        "reading": f"{work.photos_to_read} examples into memory",
        "first step": "including compilation",
        "training": f"{work.epochs} epochs of {work.steps_per_epoch} steps, "
        f"{1000 * costs.step:.0f} ms per step, {work.batch_size / costs.step:.0f} photos/s",
        "validation": f"{work.epochs} times {work.validation_photos} photos",
        "held-out folds": f"{len(work.fold_steps)} times about "
        f"{sum(work.fold_steps) // max(1, len(work.fold_steps))} steps, for the probabilities of "
        "unseen classes; thresholds.held_out_folds: 0 leaves them out",
        "saving": f"{work.epochs} times the models and a checkpoint",
        "test": f"{work.test_photos} photos, and the pictures",
    }
    shown = {part: value for part, value in seconds.items() if value > 0}
    lines = [f"  {part:22s}{duration(value):>12s}  {notes[part]}" for part, value in shown.items()]
    low, high = likely_range(sum(seconds.values()), findings.others_share)
    lines.append(f"  {'whole run':22s}{f'{duration(low)} to {duration(high)}':>12s}")
    if findings.others_share > _NOTABLE_SHARE:
        lines.append(
            f"  other programs had {100 * findings.others_share:.0f} % of the processors during "
            "this dry run; without them it takes the shorter time"
        )
    return ["time", *lines]


def _memory_lines(findings: Findings) -> list[str]:
    sizes, room = findings.sizes, findings.room
    expected = estimate_memory(findings.work, sizes)
    lines = [
        "memory",
        f"  {'peak of this dry run':22s}{size(sizes.dry_run_peak):>12s}",
        f"  {'peak of the run, about':22s}{size(expected):>12s}  of {size(room.memory)}, "
        f"{size(room.memory_free)} free now",
    ]
    lines += [
        f"  {f'peak on {name}':22s}{size(peak):>12s}  the run's will be the same"
        for name, peak in room.gpus.items()
    ]
    return lines


def _disk_lines(findings: Findings) -> list[str]:
    store, folder = estimate_disk(findings.work, findings.sizes)
    room = findings.room
    lines = ["disk"]
    if store:
        free = "not on this machine"
        if room.store_disk is not None:
            free = f"{size(room.store_disk)} free there"
        lines.append(f"  {'feature store':22s}{size(store):>12s}  {free}")
    lines.append(f"  {'run':22s}{size(folder):>12s}  {size(room.run_disk)} free there")
    return lines
