"""Settings with which a run takes seconds."""

TINY = [
    "training.epochs=2",
    "training.batch_size=8",
    "head.channels=8",
    "head.num_heads=2",
    "head.top_k=3",
]
