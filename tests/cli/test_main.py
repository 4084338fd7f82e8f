"""The command line itself: options, exit codes, what goes to which stream."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from napari_cmunet import __version__
from napari_cmunet.cli.main import build_parser, main
from napari_cmunet.cli.progress import Progress, duration, stop_on_signals


def refused(argv: list[str], capsys) -> str:
    """Run and expect bad usage; returns the last line on stderr."""
    with pytest.raises(SystemExit) as caught:
        main(argv)
    assert caught.value.code == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.splitlines()[-1]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "COMMAND"),
        (["nope"], "nope"),
        (["segment"], "INPUT"),
        (["segment", "a.tif"], "-o"),
        (["segment", "-o", "out"], "INPUT"),
        (["segment", "a.tif", "-o", "out", "--device", "tpu"], "tpu"),
        (["segment", "a.tif", "-o", "out", "--colour"], "--colour"),
        (["models", "nope"], "nope"),
        (["models", "show"], "NAME"),
    ],
)
def test_bad_usage_is_2(argv, told, capsys):
    assert told in refused(argv, capsys)


@pytest.mark.parametrize(
    "value", ["0", "-0.1", "1.01", "nan", "inf", "half", "", "50%"]
)
def test_a_threshold_lies_between_0_and_1(value, capsys):
    argv = ["segment", "a.tif", "-o", "out", f"--threshold={value}"]
    assert "is not between 0 and 1" in refused(argv, capsys)


@pytest.mark.parametrize("value", ["0.001", "0.5", "1"])
def test_thresholds_that_are_taken(value):
    argv = ["segment", "a.tif", "-o", "out", "--threshold", value]
    assert build_parser().parse_args(argv).threshold == float(value)


def test_version_and_help(capsys):
    for argv in (["--version"], ["--help"], ["segment", "--help"], ["models", "-h"]):
        with pytest.raises(SystemExit) as caught:
            main(argv)
        assert caught.value.code == 0
    out, _ = capsys.readouterr()
    assert out.startswith(f"{__version__}\n")
    assert "not a medical device" in " ".join(out.split())


def test_every_command_has_its_help():
    commands = "demo segment pretrain finetune evaluate export models".split()
    for command in commands:
        with pytest.raises(SystemExit) as caught:
            build_parser().parse_args([command, "--help"])
        assert caught.value.code == 0


@pytest.mark.slow
def test_the_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "napari_cmunet", "--version"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1 s"),
        (8.4, "8 s"),
        (89, "89 s"),
        (100, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_durations_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_one_signal_asks_for_a_stop_and_two_end_the_program():
    # In the background of a shell it is ignored.
    outer = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with stop_on_signals() as should_stop:
            assert not should_stop()
            signal.raise_signal(signal.SIGINT)
            assert should_stop()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, outer)


def test_a_signal_at_the_exit_of_the_program_is_too_late(tmp_path):
    program = (
        "import atexit, signal, sys\n"
        "from napari_cmunet.cli.main import main\n"
        "atexit.register(signal.raise_signal, signal.SIGINT)\n"
        "sys.argv[1:] = ['models', 'show', 'nowhere']\n"
        "sys.exit(main())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "KeyboardInterrupt" not in done.stderr


def test_who_calls_main_keeps_the_signals(capsys):
    before = signal.getsignal(signal.SIGINT)
    assert main(["models", "show", "nowhere"]) == 2
    assert signal.getsignal(signal.SIGINT) == before


def test_progress_is_silent_where_nobody_looks(capsys):
    progress = Progress(3)
    progress.show("a.tif")
    progress.advance()
    progress.complain("b.tif: something is wrong")
    progress.clear()
    assert capsys.readouterr() == ("", "b.tif: something is wrong\n")


def test_progress_on_a_terminal_is_one_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    progress = Progress(20)
    progress.show("a.tif")
    progress.advance()
    progress.show("a very long name indeed, much longer than the terminal is wide.tif")
    progress.complain("wrong")
    out, err = capsys.readouterr()
    assert out == ""
    assert "1/20 a.tif" in err
    last = err.split("\r\x1b[K")[2]
    assert last.startswith("2/20 a very")
    assert len(last) < 40
    assert err.endswith("\r\x1b[Kwrong\n")
