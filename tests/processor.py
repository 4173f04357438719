"""What the processor computes in, or the lesser one that `ONEDNN_MAX_CPU_ISA` stands for."""

import os
import subprocess
import sys

import pytest

PRODUCT = "import tensorflow as tf; x = tf.ones((8, 8), tf.bfloat16); tf.matmul(x, x)"


def _computes_in_bfloat16() -> bool:
    # TensorFlow 2.21 asks the processor and oneDNN asks the variable: where the two disagree,
    # TensorFlow's own product of two bfloat16 matrices ends the process.
    if "ONEDNN_MAX_CPU_ISA" not in os.environ:
        return True
    command = [sys.executable, "-c", PRODUCT]
    return subprocess.run(command, capture_output=True).returncode == 0


needs_bfloat16 = pytest.mark.skipif(
    not _computes_in_bfloat16(),
    reason=f"TensorFlow cannot multiply bfloat16 matrices with ONEDNN_MAX_CPU_ISA="
    f"{os.environ.get('ONEDNN_MAX_CPU_ISA')} on this processor",
)
MIXED_BFLOAT16 = pytest.param("mixed_bfloat16", marks=needs_bfloat16)
