import collections
import pickle
import pickletools

import numpy as np
import pytest
from torch_files import Call, pickled

from biam_tf.errors import UserError
from biam_tf.legacy_formats.pickled_arrays import read_pickled_arrays

pytestmark = pytest.mark.unit


@pytest.fixture
def write(tmp_path):
    def write(content: bytes):
        path = tmp_path / "vectors.pkl"
        path.write_bytes(content)
        return path

    return write


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_lists_dictionaries_and_texts_come_back(write, rng, protocol):
    value = {
        "single": rng.normal(size=(3, 4)).astype("f4"),
        "fortran": np.asfortranarray(rng.normal(size=(3, 4))),
        "big": np.arange(6, dtype=">i4").reshape(2, 3),
        "empty": np.zeros((0, 5), "f2"),
        "strings": np.array(["Bär", "zebra"]),
        "bools": np.array([True, False]),
        "list": [1, 2.5, "x", None, (b"y", True)],
        "ordered": collections.OrderedDict(a=np.float32(1.5)),
    }
    found = read_pickled_arrays(write(pickle.dumps(value, protocol)))
    assert list(found) == list(value)
    for key in ("single", "fortran", "big", "empty", "strings", "bools"):
        np.testing.assert_array_equal(found[key], value[key])
    assert found["list"] == value["list"] and found["ordered"] == {"a": 1.5}


def test_an_array_of_names_as_objects_is_a_list(write):
    names = np.array(["/m/011_xr", "cat"], dtype=object)
    assert read_pickled_arrays(write(pickle.dumps(names, 2))) == ["/m/011_xr", "cat"]


def test_an_array_written_by_python_2_is_read(write):
    # Its bytes are a str there: BINSTRING instead of bytes, and the type's name as well.
    content = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x08\x00\x00\xc0\x3f\x00\x00\x00\xc0tb."
    )
    np.testing.assert_array_equal(read_pickled_arrays(write(content)), np.array([1.5, -2], "f4"))


class _Runs:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"),
        ("builtins", "eval"),
        ("builtins", "getattr"),
        ("numpy", "load"),
        ("numpy.core.multiarray", "fromfile"),
        ("numpy._core.multiarray", "_reconstruct.__globals__"),
        ("_codecs", "lookup"),
        ("gensim.models.keyedvectors", "KeyedVectors"),
        ("torch._utils", "_rebuild_tensor_v2"),
    ],
)
def test_anything_else_is_refused_by_name_and_not_run(write, module, name):
    content, _ = pickled([np.ones(2), Call(module, name, "echo owned > /tmp/owned")])
    with pytest.raises(
        UserError, match=f"vectors.pkl: contains {module}.{name}, which is not an array"
    ):
        read_pickled_arrays(write(content))


def test_a_malicious_pickle_does_nothing(write, tmp_path):
    target = tmp_path / "owned"
    path = write(pickle.dumps({"vectors": _Runs(open, str(target), "w")}))
    with pytest.raises(UserError, match=r"contains .*open, which is not an array"):
        read_pickled_arrays(path)
    assert not target.exists()


def test_the_type_of_an_array_cannot_bring_code_along(write):
    with pytest.raises(UserError, match=r"contains numpy\.ma"):
        read_pickled_arrays(write(pickle.dumps(np.ma.masked_array([1.0]))))


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02r\xff\xff\xff\xffN.",  # memo index 4294967295
        b"\x80\x02X\xff\xff\xff\x7fabc.",  # a text of 2 GB, of which 3 bytes are there
        b"\x80\x02\x82\x01.",  # an object from the registry of copyreg
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
        b"\x80\x02}",
        b"",
        b"not a pickle",
        pickle.dumps([1]) + b"more",
    ],
)
def test_a_damaged_pickle_is_one_clear_error(write, content):
    with pytest.raises(UserError, match=r"vectors.pkl: .*pickle"):
        read_pickled_arrays(write(content))


def test_an_array_never_asks_for_more_than_its_bytes(write):
    content = pickle.dumps(np.zeros((3, 4), "f4"), 2)
    huge = content.replace(b"K\x03K\x04\x86", b"J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86")
    assert huge != content
    with pytest.raises(UserError, match=r"shape \(2147483647, 2147483647\) does not fit its"):
        read_pickled_arrays(write(huge))
    with pytest.raises(UserError, match="neither numbers nor strings"):
        read_pickled_arrays(write(pickle.dumps(np.zeros(2, [("a", "f4")]), 2)))


def test_one_list_named_a_billion_times_is_made_once(write):
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    content = pickletools.optimize(pickle.dumps(value, 2))
    found = read_pickled_arrays(write(content))
    assert found[0] is found[1]


def test_a_missing_file_and_a_folder_are_named(tmp_path):
    for path, problem in ((tmp_path / "no.pkl", "no such file"), (tmp_path, "this is a folder")):
        with pytest.raises(UserError, match=problem):
            read_pickled_arrays(path)
