"""Files that a prediction run writes, their order, what is left out, and how it ends."""

import errno
import io
import json
import os
import threading
import time

import numpy as np
import pytest
import torch
from conftest import tiny
from exporting import run_folder
from PIL import Image
from predicting import SPEC, Channels, dual, noise, read, save
from refusals import refused

import unetzoo.io
from unetzoo import LabelSpec, cli
from unetzoo.errors import ConfigError, DataError, ImageTooLargeError, UnknownNameError
from unetzoo.inference import Cleaning, ModelBundle, Predictor, Preprocess
from unetzoo.inference.files import mask_suffixes
from unetzoo.inference.io_pipeline import io_pipeline
from unetzoo.training import load_run


def test_every_product(tmp_path):
    image = save(tmp_path / "in" / "a.png", noise(21, 30, 6)[..., :3])
    scene = save(tmp_path / "bg" / "a.png", noise(21, 30, 3) // 2)
    predictor = Predictor(dual())
    assert predictor.predict_files(image, tmp_path / "out", background=scene, products="all") == []
    names = {path.name for path in (tmp_path / "out").iterdir()}
    ends = (".png", "_color.png", "_overlay.png", "_depth.png", "_depth_color.png", ".json")
    assert names == {f"a{end}" for end in ends}
    answer = predictor.segment(image, scene)
    color = np.asarray(read(tmp_path / "out" / "a_color.png"))
    assert np.array_equal(color, np.asarray(answer.labels.palette)[answer.label_map])
    shades = np.asarray(read(tmp_path / "out" / "a_depth_color.png")).astype(int)
    lowest, highest = (np.unravel_index(f(answer.depth), answer.depth.shape) for f in (np.argmin, np.argmax))
    assert shades[lowest].tolist() == [68, 1, 84] and shades[highest].tolist() == [253, 231, 37]  # viridis' two ends
    only = tmp_path / "only"
    predictor.predict_files(image, only, background=scene, products=["json"])
    assert [path.name for path in only.iterdir()] == ["a.json"]
    with refused(ConfigError, hint="did you mean 'overlay'"):
        predictor.predict_files(image, only, background=scene, products="mask,overly")


def test_numbers_are_those_of_the_image(tmp_path):
    image = noise(13, 22, 3)
    path = save(tmp_path / "a.png", image)
    rules = {"tile": 16, "blend": "gaussian", "threshold": {"left": 0.4}, "cleaning": Cleaning(min_area=3)}
    Predictor(Channels(), SPEC, name="mine", **rules).predict_files(path, tmp_path / "out", products="json")
    facts = json.loads((tmp_path / "out" / "a.json").read_text())
    assert facts["image"] == str(path) and (facts["height"], facts["width"]) == (13, 22)
    settings = {"network": "mine", "tile": 16, "blend": "gaussian", "thresholds": [None, 0.4, None], "min_area": 3}
    assert settings.items() <= facts["settings"].items() and facts["settings"]["tta"] is None
    Predictor(Channels(), SPEC).predict_files(path, tmp_path / "plain", products="json")
    facts = json.loads((tmp_path / "plain" / "a.json").read_text())
    scores = np.exp(image / 255.0)
    scores /= scores.sum(2, keepdims=True)
    chosen = image.argmax(2)
    for index, name in enumerate(SPEC.names):
        row = facts["classes"][name]
        assert row["index"] == index and row["pixels"] == (chosen == index).sum()
        assert row["share"] == pytest.approx((chosen == index).mean())
        assert row["confidence"] == pytest.approx(scores[..., index][chosen == index].mean(), abs=1e-6)
    assert facts["confidence"] == pytest.approx(scores.max(2).mean(), abs=1e-6)


def test_several_labels_a_pixel(tmp_path):
    image = noise(9, 12, 3)
    path = save(tmp_path / "a.png", image)
    spec = LabelSpec(("hair", "left ear", "hat"), palette=((0, 9, 0), (200, 0, 0), (0, 0, 200)))
    net = Channels()
    net.forward = lambda x: (x - 0.5) * 9
    predictor = Predictor(net, spec, mode="multilabel", threshold={"hat": 0.7})
    predictor.predict_files(path, tmp_path / "out", products="all")
    likely = 1 / (1 + np.exp(-9 * (image / 255.0 - 0.5)))
    planes = likely > np.array([0.5, 0.5, 0.7])
    for index, name in enumerate(("hair", "left_ear", "hat")):
        assert np.array_equal(np.asarray(read(tmp_path / "out" / f"a_{name}.png")), planes[..., index] * 255)
    color = np.asarray(read(tmp_path / "out" / "a_color.png"))
    last = np.where(planes[..., 2], 2, np.where(planes[..., 1], 1, 0))
    assert np.array_equal(color, np.asarray(spec.palette)[last] * planes.any(2, keepdims=True))
    facts = json.loads((tmp_path / "out" / "a.json").read_text())["classes"]
    assert [facts[name]["pixels"] for name in spec.names] == planes.sum((0, 1)).tolist()


def test_labels_whose_names_are_equal_for_a_file_system(tmp_path):
    image = noise(9, 12, 3)
    path = save(tmp_path / "in" / "a.png", image)
    net = Channels()
    net.forward = lambda x: (x - 0.5) * 9
    for names in (("T<1", "T>1", "T_1_0"), ("Ear", "ear", "overlay"), ("color", "color_0", "json")):
        out = tmp_path / names[0].strip("<1")
        predictor = Predictor(net, LabelSpec(names), mode="multilabel")
        assert predictor.predict_files(path, out, products="mask,overlay,color") == []
        masks = [out / f"a_{suffix}.png" for suffix in mask_suffixes(names)]
        assert len({mask.name.lower() for mask in masks} | {"a_overlay.png", "a_color.png"}) == 5
        for mask, plane in zip(masks, np.moveaxis(image > 127, 2, 0), strict=True):
            assert np.array_equal(np.asarray(read(mask)), plane * 255)


def test_many_processes_may_write_one_folder(tmp_path):
    paths = [save(tmp_path / "in" / f"{number}.png", noise(8, 8, 3)) for number in range(4)]
    outcomes = []

    def work():
        outcomes.append(Predictor(Channels()).predict_files(paths, tmp_path / "out", products="all"))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        for file in (tmp_path / "out").glob("[0-9]*.png"):
            read(file)  # whole at any time
    assert outcomes == [[]] * 6 and len(list((tmp_path / "out").iterdir())) == 4 * 4


def test_a_name_that_is_too_long_fails_only_its_image(tmp_path):
    for stem in ("a" * 240, "b" * 250, "c"):
        save(tmp_path / "in" / f"{stem}.png", noise(8, 8, 3))
    (failure,) = Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out")
    assert type(failure) is DataError and "b" * 250 in str(failure.subject) and failure.hint
    assert (tmp_path / "out" / f"{'a' * 240}_overlay.png").exists() and (tmp_path / "out" / "c_overlay.png").exists()


def test_order_does_not_depend_on_threads(tmp_path):
    for number in range(12):
        save(tmp_path / "in" / f"{number}.png", noise(4 + number, 5, 3))
    for number in (3, 7):
        (tmp_path / "in" / f"{number}.png").write_bytes(b"")

    class Uneven(Channels):
        def forward(self, x):
            time.sleep(0.01 if x.shape[-2] % 3 else 0)
            return x

    for workers in (1, 5):
        told = []
        failures = Predictor(Uneven()).predict_files(
            tmp_path / "in",
            tmp_path / str(workers),
            workers=workers,
            seen=lambda done, total, error: told.append((done, total, error is None)),  # noqa: B023
        )
        assert [os.path.basename(str(error.subject)) for error in failures] == ["3.png", "7.png"]
        assert told == [(n + 1, 12, n not in (3, 7)) for n in range(12)]
        assert len(list((tmp_path / str(workers)).iterdir())) == 30
    with pytest.raises(ConfigError, match="wrong workers"):
        Predictor(Uneven()).predict_files(tmp_path / "in", tmp_path / "none", workers=0)


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that fills at the overlay of image 3."""

    class Full(unetzoo.io.Disk):
        def rename(self, source, target):
            if target.name == "3_overlay.png":
                raise OSError(errno.ENOSPC, "No space left on device")
            super().rename(source, target)

    monkeypatch.setattr(unetzoo.io, "DISK", Full())


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_keeps_and_counts_finished_results(tmp_path):
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png", noise(8, 8, 3))
    with pytest.raises(ConfigError) as caught:
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", workers=1)
    assert caught.value.subject == tmp_path / "out" and "room" in caught.value.hint
    assert "3 of 6 images are done" in caught.value.found
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {f"{n}{end}" for n in range(3) for end in (".png", "_overlay.png", ".json")} <= names
    assert "3_overlay.png" not in names and not [name for name in names if name.startswith(".")]


@pytest.mark.usefixtures("full_disk")
def test_a_full_disk_does_not_hide_earlier_failures(tmp_path):
    for number in range(6):
        save(tmp_path / "in" / f"{number}.png", noise(8, 8, 3))
    (tmp_path / "in" / "1.png").write_bytes(b"no image")
    with pytest.raises(ConfigError) as caught:
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out", workers=1)
    (note,) = caught.value.__notes__
    assert "2 of 6 images are done" in caught.value.found and "1.png" in note
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]


def test_bombs_and_images_larger_than_memory(tmp_path, monkeypatch):
    for name, height in (("large", 40), ("small", 6)):
        save(tmp_path / "in" / f"{name}.png", noise(height, 30, 3))

    class Hungry(Channels):
        def forward(self, x):
            if x.shape[-2] > 30:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
            return x

    (failure,) = Predictor(Hungry()).predict_files(tmp_path / "in", tmp_path / "out")
    assert isinstance(failure, ImageTooLargeError) and "large.png" in str(failure) and "tile=512" in str(failure)
    assert (tmp_path / "out" / "small.png").exists()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    (failure,) = Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out2")
    assert isinstance(failure, ImageTooLargeError) and "image too large" in str(failure)


def test_faults_of_a_network_are_not_swallowed(tmp_path):
    path = save(tmp_path / "a.png", noise(8, 8, 3))
    net = Channels()
    net.forward = lambda x: x @ x.new_zeros(3, 3, 3)
    with pytest.raises(RuntimeError):
        Predictor(net).predict_files(path, tmp_path / "out")


def test_the_number_of_pending_tasks_is_limited():
    lock, held, most = threading.Lock(), 0, 0

    def change(by):
        nonlocal held, most
        with lock:
            held, most = held + by, max(most, held + by)

    def read(item):
        change(1)
        return item

    def write(item, done):
        time.sleep(0.002)
        change(-1)

    results = io_pipeline(range(60), read, lambda item: item, write, workers=2)
    assert list(results) == [None] * 60
    assert held == 0 and most <= 2 * 4 + 1


def test_work_that_stops_early_leaves_no_thread():
    results = io_pipeline(range(60), lambda n: n, lambda n: n, lambda item, done: None, workers=2)
    next(results)
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]


@pytest.mark.parametrize(
    "normalize", ["unit", "minmax", "standard", {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}], ids=str
)
@pytest.mark.parametrize("size", [None, (17, 12), (23, 31), (23, 12)])
def test_preparation_is_that_of_validation(normalize, size):
    from unetzoo.datasets import Transform

    image = noise(23, 31, 3)
    transform = Transform(size=size, normalize=normalize, train=False)
    validated = transform({"image": image, "id": "a"}, np.random.default_rng(0))["image"]
    assert torch.equal(Preprocess(size, transform.normalize)(image), validated)


def test_a_run_provides_its_threshold_and_predicts_whole_images(tmp_path):
    net = tiny("bnunet", classes=1, in_channels=3)
    sets = ["metrics.mask.threshold=0.9", "transform.val.crop=32", "transform.val.size=48"]
    trained = load_run(run_folder(tmp_path / "run", net, *sets))
    assert isinstance(trained, ModelBundle) and trained.threshold == 0.9 and trained.preprocess == Preprocess((48, 48))
    path = save(tmp_path / "a.png", noise(20, 30, 3))
    likely = Predictor(trained).segment(path).probabilities[0].numpy()
    strict, lax = (Predictor(trained, **o).segment(path).label_map for o in ({}, {"threshold": 0.01}))
    assert np.array_equal(strict, likely > 0.9) and np.array_equal(lax, likely > 0.01)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    net = tiny("bnunet", classes=1, in_channels=3)
    return run_folder(tmp_path_factory.mktemp("runs") / "run", net)


def predict(capsys, *args):
    with pytest.raises(SystemExit) as ended:
        cli.main(["predict", *map(str, args)])
    return ended.value.code or 0, capsys.readouterr()


def test_the_command_reads_a_list(tmp_path, run, capsys, monkeypatch):
    paths = [save(tmp_path / name, noise(40, 31, 3)) for name in ("a.png", "b.png")]
    lines = "\n".join(map(str, [paths[0], tmp_path / "none.png", "", paths[1]]))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(lines.encode())))
    options = ["--threshold", "foreground=0.2", "--largest-component", "all", "--min-area", "5", "--tile", "256"]
    code, printed = predict(capsys, run, "-", tmp_path / "out", "--write", "json,color", *options)
    assert code == 3 and "none.png" in printed.err and "1 of 3 images" in printed.err
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"a.json", "a_color.png", "b.json", "b_color.png"}
    settings = json.loads((tmp_path / "out" / "b.json").read_text())["settings"]
    assert settings["thresholds"] == [0.2] and settings["min_area"] == 5 and settings["largest_component"] == ["all"]
    for nothing, says in ((b" \n", "nothing"), (b"a.png\0b.png\0", "-print0")):
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(nothing)))
        code, printed = predict(capsys, run, "-", tmp_path / "out")
        assert code == 3 and "stdin" in printed.err and says in printed.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--threshold", "x=0.4"], "unknown class 'x'"),
        (["--threshold", "half"], "wrong --threshold"),
        (["--threshold", "0.4", "--threshold", "foreground=0.3"], "wrong --threshold"),
        (["--min-area", "2.5"], "wrong --min-area"),
        (["--fill-holes", "foregroun"], "did you mean 'foreground'"),
        (["--write", "masks"], "did you mean 'mask'"),
        (["--device", "warp"], "unusable device"),
        (["--blend", "gauss", "--tile", "256"], "did you mean 'gaussian'"),
        (["--tta", "flip"], "did you mean 'flips'"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, run, capsys, options, says):
    path = save(tmp_path / "a.png", noise(8, 8, 3))
    code, printed = predict(capsys, run, path, tmp_path / "out", *options)
    assert code == 2 and says in printed.err.replace("\n", " ")


def test_names_of_classes_are_checked(tmp_path):
    path = save(tmp_path / "a.png", noise(8, 8, 3))
    with pytest.raises(UnknownNameError, match="unknown class"):
        Predictor(Channels(), SPEC, threshold={"middle": 0.3}).predict_files(path, tmp_path / "out")
