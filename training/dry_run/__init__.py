"""A trial run on a sample: time, memory and disk that the whole run will take."""
