"""Settings with which a run takes seconds."""

TINY = [
    "training.epochs=2",
    "training.batch_size=8",
    "head.channels=8",
    "head.num_heads=2",
    "head.top_k=3",
    # Half of so short a run's time.
    "training.report=false",
    "training.tensorboard=false",
    # Each fold is a further training, and with so few photos there would be no probabilities.
    "thresholds.held_out_folds=0",
    "thresholds.fewest_photos=1",
]
# For tests of neither the head nor its photos: half of the seconds of `TINY` alone.
QUICK = ["head={system: label_em}", "backbone.image_size=32"]
# What such a run is given where its report and all its files are looked at.
COMPLETE = ["training.report=true", "training.tensorboard=true"]
