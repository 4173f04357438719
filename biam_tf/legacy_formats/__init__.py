"""Readers of PyTorch checkpoints and of pickled arrays that never run code from the file.

A pickle is a program: unpickling a file from somewhere else can execute anything. In the whole
project only this package reads pickles, and nothing in it imports torch or calls `pickle.load`:

- `restricted_pickle` walks over a pickle's opcodes first and refuses sizes and memo indices that
  would allocate memory that the file does not account for.
- `torch_pickle` and `pickled_arrays` replace `find_class`, so that a pickle can name only the
  parts of a tensor or of an array. These are inert descriptions, made into arrays afterwards.
- `torch_files` and `pickled_arrays` compare every size and offset in a description with the bytes
  that are in the file, before an array is made.

Anything else in a file is a `UserError` that names what was refused. `torch_weights` assigns arrays
that were read to Keras layers; it reads no files.
"""
