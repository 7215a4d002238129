import csv
import io
import json
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_trainer import Squares, make
from torch import nn

from unetzoo import LOSSES, METRICS, trackers, training
from unetzoo.errors import CheckpointWriteError, ConfigError, DataError
from unetzoo.report.images import colored
from unetzoo.terminal import PlainConsole
from unetzoo.trackers import TensorBoard
from unetzoo.training import Callback, logs
from unetzoo.training.logs import as_csv, as_jsonl, read_jsonl
from unetzoo.training.progress import Progress

ROWS = [
    {"epoch": 1.0, "miou": 0.1 + 0.2},
    {"epoch": 2.0, "iou/a,b": math.nan, "miou": 1e-17},
    {"epoch": 3.0, 'iou/"q"\nx': 0.5, "miou": math.inf},
]


def strictly(text):
    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in text.splitlines()]


def test_csv_keeps_its_columns_where_they_were_and_every_digit():
    table = list(csv.DictReader(io.StringIO(as_csv(ROWS))))
    assert list(table[0]) == ["epoch", "miou", "iou/a,b", 'iou/"q"\nx']
    for row, read in zip(ROWS, table, strict=True):
        assert {name: value for name, value in read.items() if value} == {name: repr(v) for name, v in row.items()}
    before = as_csv(ROWS[:2]).splitlines()[0]
    assert as_csv(ROWS).startswith(before)  # a later column never moves the others
    assert as_csv([]) == ""


def test_jsonl_is_json_and_reads_back():
    text = as_jsonl(ROWS)
    assert strictly(text)[1] == {"epoch": 2.0, "iou/a,b": None, "miou": 1e-17}


def test_a_log_that_was_cut_off_loses_only_its_last_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    text = as_jsonl(ROWS)
    path.write_text(text)
    whole = read_jsonl(path)
    assert whole.broken == [] and [row["epoch"] for row in whole.rows] == [1, 2, 3]
    assert math.isnan(whole.rows[1]["iou/a,b"])
    last = len("".join(text.splitlines(keepends=True)[:2]))
    for end in range(last + 1, len(text) - 2):
        path.write_text(text[:end])
        cut = read_jsonl(path)
        assert (len(cut.rows), cut.broken, cut.lines) == (2, [3], 3)
    path.write_bytes(b'{"a": 1}\n\xff\xfe\n[1, 2]\n{"a": 2}\n')
    assert read_jsonl(path) == ([{"a": 1}, {"a": 2}], [2, 3], 4)
    path.write_text("")
    assert read_jsonl(path) == ([], [], 0)
    with pytest.raises(DataError):
        read_jsonl(tmp_path / "nothing")


def test_a_run_writes_both_logs_and_they_agree(tmp_path):
    history = make(out=tmp_path).fit(Squares(), Squares(4, seed=1))
    lines = strictly((tmp_path / "metrics.jsonl").read_text())
    table = list(csv.DictReader(io.StringIO((tmp_path / "metrics.csv").read_text())))
    assert len(lines) == len(table) == len(history) == 2
    for row, line, read in zip(history, lines, table, strict=True):
        assert line == logs.plain(row)
        assert {name: float(value) for name, value in read.items()} == pytest.approx(row, abs=0, nan_ok=True)


def scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"images": 0})
    events.Reload()
    return events


def test_tensorboard_has_the_scores_and_images_of_the_run(tmp_path):
    board = TensorBoard(tmp_path / "board")
    history = make(callbacks=[board]).fit(Squares(), Squares(6, seed=1))
    events = scalars(tmp_path / "board")
    for name in ("train/loss", "miou", "iou/square"):
        assert [e.value for e in events.Scalars(name)] == pytest.approx([row[name] for row in history], rel=1e-6)
        assert [e.step for e in events.Scalars(name)] == [2, 4]
    assert sorted(events.Tags()["images"]) == [f"samples/s{n}" for n in range(4)]
    image = events.Images("samples/s0")[-1]
    assert image.step == 4 and image.width >= 3 * 96 and image.encoded_image_string.startswith(b"\x89PNG")


class Even(nn.Module):
    """The same probability of foreground everywhere: a little more than 1/4."""

    def __init__(self):
        super().__init__()
        self.logit = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x):
        return self.logit + 0 * x


class Writer:
    """A writer for TensorBoard that keeps the images."""

    def __init__(self):
        self.seen = {}

    def add_image(self, name, image, step, dataformats):
        self.seen[name.removeprefix("samples/")] = image

    def __getattr__(self, name):
        return lambda *given: None


@pytest.mark.parametrize(("threshold", "label"), [(0.5, 0), (0.2, 1)])
def test_images_are_drawn_at_the_threshold_of_the_metric(threshold, label, monkeypatch):
    net, shown = Even(), Writer()
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", lambda *given, **named: shown)
    metric = METRICS.build("segmentation", num_classes=1, threshold=threshold)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-6)
    make(net, LOSSES.build("bce"), metric, callbacks=[TensorBoard("x")], epochs=2, optimizer=optimizer).fit(
        Squares(), Squares(2)
    )
    color = colored(np.array([[label]]), Squares.labels)[0, 0]
    for image in shown.seen.values():  # input, truth, prediction, overlay
        assert (image[-16:, image.shape[1] * 5 // 8] == color).all()
    assert list(shown.seen) == ["s0", "s1"]


def test_tensorboard_drops_steps_that_a_resumed_run_repeats(tmp_path):
    for first, values in ((0, {2: 0.1, 4: 0.2, 6: 0.3}), (4, {6: 0.5})):
        board, trainer = (
            TensorBoard(tmp_path),
            SimpleNamespace(steps=first, out=None, metrics={}, labels=None, finished=True),
        )
        board.on_begin(trainer)
        for trainer.steps, value in values.items():
            board.on_epoch(trainer, {"miou": value, "iou/none": math.nan}, False)
        board.on_message(trainer, "collapse", "one\ntwo")
        board.on_end(trainer)
        board.on_end(trainer)
    events = scalars(tmp_path)
    assert [(e.step, round(e.value, 3)) for e in events.Scalars("miou")] == [(2, 0.1), (4, 0.2), (6, 0.5)]
    assert "iou/none" not in events.Tags()["scalars"]


def test_without_tensorboard_no_run_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers.base, "find_spec", lambda name: None)
    with pytest.raises(ConfigError) as caught:
        training.train("demo", ['train.log=["tensorboard"]'], out=tmp_path / "run", progress=False)
    assert "pip install tensorboard" in caught.value.hint
    assert not (tmp_path / "run").exists()
    training.load_recipe("demo", ['train.log=["tensorboard"]'])  # a run that was made elsewhere can still be read


def test_a_log_on_a_full_disk_is_our_error():
    class Full(Callback):
        def on_epoch(self, trainer, row, better):
            raise OSError(28, "No space left on device")

    with pytest.raises(CheckpointWriteError) as caught:
        make(callbacks=[Full()]).fit(Squares(), Squares(2))
    assert caught.value.subject == "Full" and "--resume" in caught.value.hint


class Clock:
    """Each step of a run takes the same time."""

    def __init__(self, monkeypatch, seconds):
        self.now, self.seconds = 0.0, seconds
        monkeypatch.setattr("unetzoo.training.progress.time.monotonic", lambda: self.now)

    def __call__(self, batch):
        self.now += self.seconds
        return batch


def shown(monkeypatch, *, terminal, seconds, **settings):
    """The output of a run whose steps take a given number of seconds."""
    trainer = make(batch_size=4, batch_transform=Clock(monkeypatch, seconds), **settings)
    progress = next(callback for callback in trainer.callbacks.all if isinstance(callback, Progress))
    text = io.StringIO()
    progress.enabled = True
    progress.console = PlainConsole(file=text, force_terminal=terminal, width=200, color_system=None)
    trainer.fit(Squares(16), Squares(4))
    return text.getvalue()


def test_a_terminal_shows_loss_score_speed_memory_and_time_left(monkeypatch):
    text = shown(monkeypatch, terminal=True, seconds=2.0, epochs=2)
    assert re.search(r"epoch 2  loss \d\.\d{4}  miou \d\.\d{4}  2 samples/s  \d+\.\d\d GiB .* \d+/8 ", text)
    assert re.search(r"epoch   1 \* miou \d", text)


def test_a_pipe_gets_a_line_at_the_start_and_one_per_minute_of_the_first_epoch(monkeypatch):
    lines = shown(monkeypatch, terminal=False, seconds=31.0, epochs=2).splitlines()
    assert "2 epochs" in lines[0] and "8 steps" in lines[0]
    assert [line.split("  ")[0] for line in lines[1:]] == ["step 2 of 8", "step 4 of 8", "epoch", "epoch"]


def test_messages_are_printed_literally(capsys):
    Progress(True).on_message(make(), "note", "samples ['[red]a[/red]'] stay as they are")
    assert "[red]a[/red]" in capsys.readouterr().err


@pytest.mark.parametrize("installed", [True, False])
def test_jupyter_without_widgets_gets_plain_lines(monkeypatch, installed):
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    monkeypatch.setattr("unetzoo.terminal.find_spec", lambda name: object() if installed else None)
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Jupyter's kernel does
    console = Progress(enabled=True).console
    assert console.is_jupyter == installed and not console.is_terminal
