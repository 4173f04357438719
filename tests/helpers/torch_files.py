"""Writes files as torch.save does, byte by byte, so that tests need no torch."""

import collections
import io
import pickle
import struct
import zipfile

import numpy as np

from biam_tf.legacy_formats import torch_files as torch_reader
from biam_tf.legacy_formats import torch_pickle

STORAGE_NAMES = {dtype: name for name, dtype in torch_pickle.STORAGES.items()}
STORAGE_NAMES["uint8"] = "ByteStorage"


class Name:
    """A global of a pickle, written by name: torch need not be there to name its classes."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """A function of a pickle and the arguments it is called with."""

    def __init__(self, module, name, *arguments):
        self.function, self.arguments = Name(module, name), arguments


class Storage:
    """A block of numbers; `declared` is the count the pickle tells, if it is to lie."""

    def __init__(self, key, content, dtype="float32", declared=None, pid=None):
        self.key, self.content = key, content
        self.true_count = len(content) // np.dtype(torch_pickle.DTYPES[dtype]).itemsize
        self.count = self.true_count if declared is None else declared
        self.name, self.pid = Name("torch", STORAGE_NAMES[dtype]), pid


class Pickler(pickle._Pickler):  # the one written in Python: `save` can be overridden in it
    def __init__(self, file, legacy):
        super().__init__(file, protocol=2)
        self.storages, self.legacy = {}, legacy

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        self.storages[obj.key] = obj
        usual = ("storage", obj.name, obj.key, "cpu", obj.count) + ((None,) if self.legacy else ())
        return obj.pid or usual

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, Name):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
        elif isinstance(obj, Call):
            self.save(obj.function)
            self.save(obj.arguments)
            self.write(pickle.REDUCE)
        else:
            super().save(obj, save_persistent_id)


def pickled(value, legacy=False):
    file = io.BytesIO()
    pickler = Pickler(file, legacy)
    pickler.dump(value)
    return file.getvalue(), pickler.storages


def write_zip(path, value, top="archive", byte_order=b"little", method=zipfile.ZIP_STORED):
    content, storages = pickled(value)
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr(f"{top}/data.pkl", content)
        if byte_order is not None:
            archive.writestr(f"{top}/byteorder", byte_order)
        for key, storage in storages.items():
            archive.writestr(f"{top}/data/{key}", storage.content)
    return path


def write_legacy(path, value):
    content, storages = pickled(value, legacy=True)
    with open(path, "wb") as file:
        for part in (torch_reader.LEGACY_MAGIC, torch_reader.LEGACY_PROTOCOL, {}):
            pickle.dump(part, file, protocol=2)
        file.write(content)
        pickle.dump(list(storages), file, protocol=2)
        for storage in storages.values():
            file.write(struct.pack("<q", storage.true_count) + storage.content)
    return path


def tensor(array, key="0", *, dtype=None, byte_order="<", **window):
    """A torch tensor that holds `array`; `window` overrides what the pickle says of it."""
    dtype = dtype or array.dtype.name
    little = array.astype(array.dtype.newbyteorder(byte_order))
    storage = window.pop("storage", Storage(key, little.tobytes(), dtype))
    strides = tuple(stride // array.itemsize for stride in array.strides)
    settings = {"offset": 0, "shape": array.shape, "strides": strides, **window}
    return Call(
        "torch._utils",
        "_rebuild_tensor_v2",
        storage,
        settings["offset"],
        settings["shape"],
        settings["strides"],
        False,
        collections.OrderedDict(),
    )
