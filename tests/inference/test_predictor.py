"""Files in, images out."""

import os

import numpy as np
import pytest
import torch
from PIL import Image
from predicting import SPEC, Channels, dual, noise, read, save
from refusals import refused

import unetzoo
from unetzoo.errors import ConfigError, DataError, ImageDecodeError, InputShapeError, PairingError, SizeMismatchError
from unetzoo.inference import Predictor
from unetzoo.labels import LabelSpec


def test_masks_are_class_numbers_with_colors(tmp_path):
    image = noise(13, 22, 3)
    path = save(tmp_path / "a.png", image)
    mask, overlay, depth = Predictor(Channels(), SPEC).predict_file(path)
    assert mask.mode == "P" and depth is None
    assert np.array_equal(np.asarray(mask), image.argmax(2))
    colors = np.asarray(SPEC.palette)[image.argmax(2)]
    assert np.array_equal(np.asarray(mask.convert("RGB")), colors)
    expected = np.where(colors.any(2, keepdims=True), np.rint(image * 0.5 + colors * 0.5), image)
    assert np.array_equal(np.asarray(overlay), expected)


def test_folders_globs_files_and_lists(tmp_path):
    for name in ("pic10.png", "pic2.jpg", "sub/other.png", "notes.txt", ".hidden.png"):
        save(tmp_path / "in" / name, noise(9, 8, 3), format="PNG")
    predictor = Predictor(
        unetzoo.build("bnunet", classes=2, encoder_channels=(4, 4, 4)), preprocess=unetzoo.Preprocess()
    )
    for number, (inputs, stems) in enumerate(
        (
            (tmp_path / "in", {"pic2", "pic10"}),
            (str(tmp_path / "in" / "**" / "*.png"), {"pic10", "other"}),
            (tmp_path / "in" / "pic2.jpg", {"pic2"}),
            ([tmp_path / "in" / "pic2.jpg", tmp_path / "in"], {"pic2", "pic10"}),
        )
    ):
        out = tmp_path / "out" / str(number)
        assert predictor.predict_files(inputs, out) == []
        names = {p.name for p in out.iterdir()}
        assert names == {f"{stem}{end}" for stem in stems for end in (".png", "_overlay.png", ".json")}
    with Image.open(tmp_path / "out" / "0" / "pic10.png") as mask:
        assert mask.mode == "P" and mask.size == (8, 9)
    with pytest.raises(DataError, match="no images"):
        predictor.predict_files(tmp_path / "nowhere", tmp_path / "o")


def test_depth_binary_masks_and_backgrounds(tmp_path):
    image, scene = noise(21, 30, 3), noise(21, 30, 3) // 2
    save(tmp_path / "fg" / "one.png", image)
    save(tmp_path / "bg" / "one.jpg", scene, format="PNG")
    net = dual()
    assert Predictor(net).predict_files(tmp_path / "fg", tmp_path / "out", background=tmp_path / "bg") == []
    logits, depth = unetzoo.predict(net, np.concatenate([image, scene], axis=2))
    mask, deep = (read(tmp_path / "out" / name) for name in ("one.png", "one_depth.png"))
    assert np.array_equal(np.asarray(mask), (logits[0] > 0).numpy())
    assert deep.mode == "I;16"
    assert np.array_equal(np.asarray(deep), np.rint(depth[0].numpy() * 65535).astype(np.uint16))
    one_for_all = Predictor(net).predict_file(tmp_path / "fg" / "one.png", tmp_path / "bg" / "one.jpg")
    assert np.array_equal(np.asarray(one_for_all.mask), np.asarray(mask))
    assert Predictor(net).predict_files(tmp_path / "fg", tmp_path / "o2", background=tmp_path / "bg" / "one.jpg") == []


def test_backgrounds_that_do_not_belong(tmp_path):
    save(tmp_path / "fg" / "one.png", noise(21, 30, 3))
    save(tmp_path / "fg" / "two.png", noise(21, 30, 3))
    save(tmp_path / "bg" / "one.png", noise(20, 30, 3))
    failures = Predictor(dual()).predict_files(tmp_path / "fg", tmp_path / "out", background=tmp_path / "bg")
    assert [type(error) for error in failures] == [SizeMismatchError, PairingError]
    assert "one.png" in str(failures[0]) and "two.png" in str(failures[1])


@pytest.mark.parametrize(
    ("channels", "background", "hint"),
    [
        (6, False, "give `background`"),
        (3, True, "omit `background`"),
        (4, False, "pixels=Pixels(4"),
        (5, True, "unetzoo.predict"),
    ],
)
def test_networks_that_take_other_images(tmp_path, channels, background, hint):
    path = save(tmp_path / "a.png", noise(8, 8, 3))
    with refused(ConfigError, hint=hint):
        Predictor(Channels(channels)).predict_files(path, tmp_path / "out", background=path if background else None)


def test_broken_files_do_not_stop_the_rest(tmp_path):
    save(tmp_path / "in" / "good.png", noise(8, 8, 3))
    (tmp_path / "in" / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"0" * 40)
    (tmp_path / "in" / "cut.jpg").write_bytes(b"")
    save(tmp_path / "in" / "deep.png", noise(8, 8).astype(np.uint16))
    frames = [Image.fromarray(noise(8, 8)), Image.fromarray(255 - noise(8, 8))]
    frames[0].save(tmp_path / "in" / "film.gif", save_all=True, append_images=frames[1:])
    failures = Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out")
    assert all(isinstance(error, ImageDecodeError) for error in failures)
    assert [os.path.basename(str(e.subject)) for e in failures] == ["bad.png", "cut.jpg", "deep.png", "film.gif"]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["good.json", "good.png", "good_overlay.png"]
    with pytest.raises(ImageDecodeError, match="no such file"):
        Predictor(Channels()).predict_file(tmp_path / "none.png")


def test_a_failure_names_its_file(tmp_path):
    path = save(tmp_path / "a.png", noise(8, 8, 3))
    predictor = Predictor(Channels(), preprocess=lambda array: torch.zeros(2, 8, 8))
    (failure,) = predictor.predict_files(path, tmp_path / "out")
    assert isinstance(failure, InputShapeError) and "a.png" in str(failure)


def test_nothing_is_overwritten_that_was_read(tmp_path):
    save(tmp_path / "a.png", noise(8, 8, 3))
    with pytest.raises(ConfigError) as caught:
        Predictor(Channels()).predict_files(tmp_path, tmp_path)
    assert caught.value.subject == tmp_path and caught.value.hint
    save(tmp_path / "in" / "a.png", noise(8, 8, 3))
    save(tmp_path / "in" / "a.bmp", noise(8, 8, 3))
    with pytest.raises(DataError, match="one file"):
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.bmp").unlink()
    with pytest.raises(ConfigError, match="cannot write"):
        Predictor(Channels()).predict_files(tmp_path / "in", tmp_path / "a.png")


def test_files_are_upright_and_converted(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(tmp_path / "turned.png", noise(10, 20, 3), exif=exif)
    assert Predictor(Channels()).predict_file(tmp_path / "turned.png").mask.size == (10, 20)
    save(tmp_path / "gray.png", noise(10, 20))
    assert not np.asarray(Predictor(Channels()).predict_file(tmp_path / "gray.png").mask).any()
    save(tmp_path / "alpha.png", noise(10, 20, 4))
    single = Predictor(Channels(1)).predict_file(tmp_path / "alpha.png")
    assert single.mask.size == (20, 10) and single.overlay.mode == "RGB"


def test_outputs_of_another_size_are_resized_to_the_image(tmp_path):
    path = save(tmp_path / "a.png", noise(21, 30, 3))
    half = Predictor(dual(in_channels=3, out_stride=2)).predict_file(path)
    assert half.mask.size == half.depth.size == half.overlay.size == (30, 21)
    shrunk = Predictor(Channels(), preprocess=lambda array: torch.from_numpy(array[::3, ::3] / 255).permute(2, 0, 1))
    assert shrunk.predict_file(path).mask.size == (30, 21)


def test_mirrored_outputs_swap_left_and_right(tmp_path):
    class Sided(Channels):
        """Predicts class 1 in the left half and class 2 in the right half of any image."""

        def forward(self, x):
            out = torch.zeros_like(x)
            middle = x.shape[-1] // 2
            out[:, 1, :, :middle] = out[:, 2, :, middle:] = 1
            return out

    path = save(tmp_path / "a.png", noise(8, 8, 3))
    mask = np.asarray(Predictor(Sided(), SPEC, tta="flips").predict_file(path).mask)
    assert (mask[:, :4] == 1).all() and (mask[:, 4:] == 2).all()


def test_one_channel(tmp_path):
    class Flat(Channels):
        def __init__(self, value, squashed=False):
            super().__init__()
            self.value = value
            self.segmentation_head = torch.nn.Sequential(torch.nn.Sigmoid()) if squashed else torch.nn.Identity()

        def forward(self, x):
            return torch.full_like(x[:, :1], self.value)

    path = save(tmp_path / "a.png", noise(8, 8, 3))
    found = [
        np.asarray(Predictor(Flat(*args)).predict_file(path).mask).max() for args in ((0.2,), (-0.2,), (0.2, True))
    ]
    assert found == [1, 0, 0]
    named = Predictor(Flat(1.0), LabelSpec(("cell",))).predict_file(path).mask
    assert np.asarray(named.convert("RGB")).min() == 255
    with pytest.raises(ConfigError, match="labels and network differ"):
        Predictor(Flat(1.0), SPEC).predict_files(path, tmp_path / "out")
