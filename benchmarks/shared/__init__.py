"""Code shared by several benchmarks, and the processes that they measure."""
