"""Progress of several runs: bars where someone looks, a few lines where a log is written."""

import io

from lab.comparison.plan import Progress
from server.run_bars import CountBar, RunBars


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def step(done: int, run: str = "pat seed 0") -> Progress:
    return Progress("train", run, done, 8, accuracy=done / 10)


def test_a_log_gets_a_line_each_quarter_of_a_run() -> None:
    log = io.StringIO()
    with RunBars(log) as bars:
        bars.add("pat seed 0")
        bars.show(Progress("fit", "twin on 300 rows", 250, 1000))
        for done in range(1, 9):
            bars.show(step(done))
    assert log.getvalue().splitlines() == [
        "twin on 300 rows: step 250 of 1000",
        "pat seed 0: step 2 of 8, training accuracy 0.20",
        "pat seed 0: step 4 of 8, training accuracy 0.40",
        "pat seed 0: step 6 of 8, training accuracy 0.60",
        "pat seed 0: step 8 of 8, training accuracy 0.80",
    ]


def test_a_terminal_gets_a_bar_for_each_run() -> None:
    terminal = Terminal()
    with RunBars(terminal) as bars:
        for run in ("twin on 300 rows", "pat seed 0", "pat seed 1"):
            bars.add(run)
        bars.show(Progress("fit", "twin on 300 rows", 980, 1000))
        bars.show(step(8))
        bars.show(step(2, "pat seed 1"))
    # the last state of each bar, as it is left on the terminal
    last = {text[:20].strip(): text for text in terminal.getvalue().split("\r") if "%" in text}
    assert "100%" in last["twin on 300 rows"]
    assert "100%" in last["pat seed 0"]
    assert "training accuracy 0.80" in last["pat seed 0"]
    assert "25%" in last["pat seed 1"]


def test_one_bar_counts_the_shares_of_all_runs() -> None:
    terminal = Terminal()
    with CountBar(2, terminal) as bar:
        bar.show(Progress("fit", "twin on 300 rows", 980, 1000))
        for done in range(1, 9):
            bar.show(step(done))
            bar.show(step(done, "pat seed 1"))
    assert "100%" in terminal.getvalue().rsplit("\r", 1)[1]


def test_half_of_the_runs_are_half_of_the_bar() -> None:
    terminal = Terminal()
    with CountBar(2, terminal) as bar:
        bar.show(step(8))
    assert " 50%" in terminal.getvalue().rsplit("\r", 1)[1]
