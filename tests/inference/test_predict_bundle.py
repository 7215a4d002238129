"""`predict` and `predict_labels` of networks that carry their preprocessing and labels."""

import numpy as np
import pytest
import torch
from conftest import small
from predicting import SPEC, Channels, knowing, noise, save

import unetzoo
from unetzoo.bundle import ModelBundle
from unetzoo.errors import ConfigError, DataError
from unetzoo.images import Preprocess
from unetzoo.inference import Predictor, predict_labels, predict_to


@pytest.mark.parametrize("preprocess", [Preprocess(normalize="standard"), Preprocess((20, 24), "minmax")], ids=str)
def test_a_decoded_image_is_preprocessed_as_the_network_says(tmp_path, preprocess):
    net, image = small(in_channels=3), noise(33, 47, 3)
    bare = unetzoo.predict(net, image)
    knowing(net, preprocess)
    logits = unetzoo.predict(net, image)
    assert logits.shape == bare.shape and not torch.allclose(logits, bare, atol=1e-3)
    seen = unetzoo.predict(net, preprocess(image))
    if preprocess.size is None:
        assert torch.equal(logits, seen)
    assert torch.equal(unetzoo.predict(ModelBundle.of(net), image), logits)
    path = save(tmp_path / "in" / "a.png", image)
    labels = Predictor(net).segment(path).label_map
    assert np.array_equal(labels, predict_labels(net, image)) and np.array_equal(labels, predict_labels(net, path))
    assert (labels == logits.argmax(0).numpy()).mean() > 0.999


def test_sides_change_places_by_the_network_s_own_labels():
    net = Channels()
    ModelBundle.of(net)._replace(labels=SPEC).attach()
    net.forward = lambda x: torch.cat([x[:, :1] * 0, x[:, 1:2] * 0 + 1, x[:, 2:] * 0], 1)  # "left" wherever it looks
    logits = unetzoo.predict(net, noise(8, 8, 3), tta="flips")
    assert torch.allclose(logits[1], logits[2])


@pytest.mark.parametrize("use", [Predictor, lambda net: predict_to(net, noise(9, 9, 3), "a.npy"), predict_labels])
def test_an_unknown_preprocessing_is_asked_for(use, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = small(in_channels=3)
    with pytest.raises(ConfigError) as caught:
        use(net, noise(9, 9, 3)) if use is predict_labels else use(net)
    assert "preprocess=" in caught.value.hint
    with pytest.raises(ConfigError):
        unetzoo.export(net, "net.pt2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3), np.float32), np.zeros((2, 4, 4, 3), np.uint8)])
def test_only_decoded_images_are_segmented(image):
    with pytest.raises(DataError) as caught:
        Predictor(Channels()).segment(image)
    assert caught.value.hint
