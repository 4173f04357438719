import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from biam_tf import locks, processes
from biam_tf.errors import UserError
from biam_tf.locks import locked

HOLD = """
import sys, time
from biam_tf.locks import locked
with locked(sys.argv[1], "x"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_exists_while_it_is_held_and_leaves_nothing(tmp_path):
    path = tmp_path / "runs" / "a" / ".lock"
    with locked(path, "a is being trained"):
        owner = json.loads(path.read_text())
        assert owner["process"] == os.getpid() and owner["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []
    with locked(path, "a is being trained"):
        (path.parent / "file").touch()
    assert [file.name for file in path.parent.iterdir()] == ["file"]


def test_another_process_is_named_and_its_lock_is_free_when_it_is_killed(tmp_path):
    path = tmp_path / ".lock"
    owner = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE, text=True)
    try:
        assert owner.stdout.readline() == "held\n"
        message = f"a is being trained by process {owner.pid} on {socket.gethostname()}"
        with pytest.raises(UserError, match=message), locked(path, "a is being trained"):
            pass
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    assert path.exists()
    with locked(path, "a is being trained"):
        assert json.loads(path.read_text())["process"] == os.getpid()


def left_by(path, **owner):
    fields = {"process": os.getpid(), "host": socket.gethostname(), "started": 1} | owner
    path.write_text(json.dumps(fields))


@pytest.mark.unit
def test_the_lock_of_another_host_is_respected_while_it_is_touched(tmp_path):
    path = tmp_path / ".lock"
    left_by(path, host="elsewhere", process=7)
    with pytest.raises(UserError, match=r"process 7 on elsewhere; .*once you delete .*\.lock"):
        with locked(path, "a is being trained"):
            pass
    old = path.stat().st_mtime - 2 * locks.LEFT_AFTER_SECONDS
    os.utime(path, (old, old))
    with locked(path, "a is being trained"):
        assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.unit
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000])
def test_a_lock_that_was_not_written_whole_is_taken_over(tmp_path, text):
    path = tmp_path / ".lock"
    path.write_text(text)
    with locked(path, "a is being trained"):
        assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.unit
def test_without_locks_of_the_system_the_owner_decides(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "fcntl", None)
    path = tmp_path / ".lock"
    parent = os.getppid()
    left_by(path, process=parent, started=processes._start_of(parent))
    with pytest.raises(UserError, match=f"by process {parent} on"):
        with locked(path, "a is being trained"):
            pass
    left_by(path, process=parent, started=12345)  # its number was given to another process
    with locked(path, "a is being trained"):
        pass


@pytest.mark.unit
def test_a_folder_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        with locked(tmp_path / "file" / "run" / ".lock", "a is being trained"):
            pass
