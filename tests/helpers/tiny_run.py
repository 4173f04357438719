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
]
# What such a run is given where its report and all its files are looked at.
COMPLETE = ["training.report=true", "training.tensorboard=true"]
