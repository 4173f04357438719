"""Learning rates over the steps of a run."""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="biam_tf")
class WarmupThenDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Rises linearly to the peak, then stays or falls along half a cosine.

    Gradual warm-up as in BiAM's training details (section 3). Step 0 already moves: it has
    `1 / warmup_steps` of the peak.

    Args:
        peak: float, learning rate at the end of the warm-up.
        warmup_steps: int, 0 for none.
        total_steps: int, steps of the whole run.
        final: float, learning rate at the last step of the cosine.
        decay: `"cosine"` or `"constant"`.
    """

    def __init__(self, peak, warmup_steps, total_steps, final=0.0, decay="cosine"):
        self.peak = peak
        self.warmup_steps = warmup_steps
        self.total_steps = total_steps
        self.final = final
        self.decay = decay

    def __call__(self, step):
        """Returns the learning rate of `step`, an integer counted from 0, as float32."""
        step = ops.cast(step, "float32")
        if self.decay == "cosine":
            steps_of_decay = max(1, self.total_steps - self.warmup_steps - 1)
            progress = ops.clip((step - self.warmup_steps) / steps_of_decay, 0.0, 1.0)
            cosine = 0.5 * (1.0 + ops.cos(math.pi * progress))
            rate = self.final + (self.peak - self.final) * cosine
        else:
            rate = ops.convert_to_tensor(self.peak, dtype="float32")
        if self.warmup_steps:
            rising = self.peak * (step + 1.0) / self.warmup_steps
            rate = ops.where(step < self.warmup_steps, rising, rate)
        return rate

    def get_config(self):
        """Returns the constructor's arguments."""
        return {
            "peak": self.peak,
            "warmup_steps": self.warmup_steps,
            "total_steps": self.total_steps,
            "final": self.final,
            "decay": self.decay,
        }
