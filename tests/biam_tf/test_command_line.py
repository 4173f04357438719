"""What `run_command` does for all commands."""

import argparse
import io
import pathlib
import shlex
import subprocess
import sys

import pytest

from biam_tf.command_line import command_to_paste, run_command
from biam_tf.errors import UserError

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_what_a_terminal_cannot_show_is_replaced(encoding, monkeypatch):
    shown = {name: io.TextIOWrapper(io.BytesIO(), encoding) for name in ("stdout", "stderr")}
    for name, stream in shown.items():
        monkeypatch.setattr(sys, name, stream)

    def command(arguments):
        print("a dog \U0001f436 a caf\u00e9 \udce9")
        raise UserError("no file \U0001f436.jpg")

    assert run_command(argparse.ArgumentParser(), command, []) == 2
    for stream in shown.values():
        stream.flush()
    printed, failed = (stream.buffer.getvalue().decode(encoding) for stream in shown.values())
    dog = "\U0001f436" if encoding == "utf-8" else r"\U0001f436"
    assert printed.startswith(f"a dog {dog} a caf") and failed == f"error: no file {dog}.jpg\n"
    assert ("caf\u00e9" in printed) == (encoding != "ascii")


def test_paths_may_begin_with_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("photos", nargs="+")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--count", type=int, default=3)
    found = []
    command = ["~/a", "~/b.jpg", "c/~/d", "~", "~nobody-here/x", "--set", "a=~/b"]
    assert run_command(parser, found.append, command) == 0
    (arguments,) = found
    assert arguments.folder == pathlib.Path("/home/someone/a")
    home = "/home/someone"
    assert arguments.photos == [f"{home}/b.jpg", "c/~/d", home, "~nobody-here/x"]
    assert (arguments.set, arguments.count) == (["a=~/b"], 3)


def test_a_command_to_paste_runs_in_this_environment(monkeypatch, tmp_path):
    python = tmp_path / "my venv/bin/python"
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    elsewhere = command_to_paste("training.run", "--set", "output=my run")
    assert shlex.split(elsewhere) == [str(python), "-m", "training.run", "--set", "output=my run"]
    monkeypatch.chdir(tmp_path)
    assert command_to_paste("training.run").startswith("'my venv/bin/python' -m")
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(python.parent))  # activated
    assert command_to_paste("training.run") == "python -m training.run"


def test_an_interruption_says_what_its_reason_is(capsys):
    def stop(arguments):
        raise KeyboardInterrupt("run the same command to continue")

    assert run_command(argparse.ArgumentParser(), stop, []) == 130
    assert capsys.readouterr().err == "run the same command to continue\n"


def test_a_misspelled_option_is_answered_by_one_line(capsys):
    def parser():
        made = argparse.ArgumentParser(prog="biam tag")
        made.add_argument("--config")
        made.add_argument("photos", nargs="+")
        return made

    for arguments, line in (
        # A misspelled option comes before a missing argument.
        (["--confg", "x"], "error: biam tag has no option --confg; did you mean --config?\n"),
        (["a.jpg", "--confg=x"], "error: biam tag has no option --confg; did you mean --config?\n"),
        (["a.jpg", "--zzz"], "error: biam tag has no option --zzz; --help shows its options\n"),
    ):
        with pytest.raises(SystemExit) as left:
            run_command(parser(), lambda arguments: 0, arguments)
        assert left.value.code == 2 and capsys.readouterr().err == line
    seen = []
    run_command(parser(), seen.append, ["--config", "--a b", "--", "--confg"])
    assert seen[0].config == "--a b" and seen[0].photos == ["--confg"]


def test_ctrl_c_says_whether_the_same_command_continues(capsys):
    def command(arguments):
        raise KeyboardInterrupt

    assert run_command(argparse.ArgumentParser(), command, []) == 130
    assert capsys.readouterr().err == "stopped by Ctrl-C\n"
    assert run_command(argparse.ArgumentParser(), command, [], resumable=True) == 130
    kept = "what is done is kept: run the same command to continue"
    assert capsys.readouterr().err == f"stopped by Ctrl-C; {kept}\n"


@pytest.mark.integration
def test_a_signal_that_another_thread_receives_ends_the_waiting():
    program = """
import signal, threading, time
from biam_tf.command_line import until_stopped

wait = until_stopped()
def other():
    time.sleep(0.5)  # until the main thread waits
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
    time.sleep(3600)
threading.Thread(target=other, daemon=True).start()
wait()
print("ended")
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout) == (0, b"ended\n"), ended.stderr
