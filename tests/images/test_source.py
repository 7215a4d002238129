"""Windows of a TIFF file hold the pixels that `read_image` gives for it, or both refuse it."""

import itertools
import time

import numpy as np
import pytest
import tifffile
from hostile import hostile_tiffs
from PIL import Image

from unetzoo.errors import DataError, UnetzooError
from unetzoo.images import array_source, read_image
from unetzoo.images.source import open_source
from unetzoo.images.tiff_source import TiffSource

HEIGHT, WIDTH = 75, 90
KINDS = {
    "gray": (1, {"photometric": "minisblack"}),
    "inverted gray": (1, {"photometric": "miniswhite"}),
    "gray and alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
    "gray and premultiplied alpha": (2, {"photometric": "minisblack", "extrasamples": ["assocalpha"]}),
    "gray and another band": (2, {"photometric": "minisblack", "extrasamples": ["unspecified"]}),
    "RGB": (3, {"photometric": "rgb"}),
    "RGB and alpha": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
    "RGB and premultiplied alpha": (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    "RGB and another band": (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
    "RGB, alpha and another band": (5, {"photometric": "rgb", "extrasamples": ["unassalpha", "unspecified"]}),
    "CMYK": (4, {"photometric": "separated"}),
    "YCbCr": (3, {"photometric": "ycbcr"}),
    "LAB": (3, {"photometric": "cielab"}),
    "five bands": (5, {"photometric": "minisblack", "extrasamples": ["unspecified"] * 4}),
    "palette": (1, {"photometric": "palette", "colormap": np.arange(768, dtype=np.uint16).reshape(3, 256) * 80}),
}


def pixels_of(samples, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (HEIGHT, WIDTH, samples), dtype, endpoint=True)
    if samples in (2, 4, 5):  # premultiplied colors are at most their alpha
        values[..., samples - 1] = np.maximum(values[..., samples - 1], values.max())
        values[:30, :30] //= 2
    return values


def written(path, kind, dtype=np.uint8, **layout):
    samples, options = KINDS[kind]
    values = pixels_of(samples, dtype)
    values = values[..., 0] if samples == 1 else values
    if layout.get("planarconfig") == "separate":
        values = np.moveaxis(values, 2, 0)
    elif samples > 1:
        layout = {"planarconfig": "contig", **layout}
    tifffile.imwrite(path, values, metadata=None, **options, **layout)
    return path


def read_in_windows(path, channels, step=32):
    with open_source(path, channels) as image:
        whole = np.zeros(image.shape, image.dtype)
        for top, left in itertools.product(range(0, HEIGHT, step), range(0, WIDTH, step)):
            bottom, right = min(top + step, HEIGHT), min(left + step, WIDTH)
            whole[top:bottom, left:right] = image.read(top, bottom, left, right)
    return whole


@pytest.mark.parametrize("layout", [{"tile": (32, 48)}, {"rowsperstrip": 7}], ids=["tiles", "strips"])
@pytest.mark.parametrize("kind", KINDS)
def test_windows_equal_the_decoded_image(tmp_path, kind, layout):
    path = written(tmp_path / "a.tif", kind, **layout)
    for channels in (1, 3):
        try:
            expected = read_image(path, channels)
        except DataError:
            expected = None
        try:
            found = read_in_windows(path, channels)
        except DataError:
            found = None
        if expected is None or found is None:
            assert found is None, "read in windows, refused as a whole"
            assert expected is None or kind == "palette"  # a palette cannot be cut out of its file
        else:
            assert np.array_equal(found, expected), channels


@pytest.mark.parametrize("kind", ["RGB", "RGB and another band", "five bands"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_stored_channels_are_not_converted(tmp_path, kind, dtype):
    samples = KINDS[kind][0]
    for layout in ({"tile": (32, 32)}, {"tile": (32, 32), "planarconfig": "separate"}):
        path = written(tmp_path / "a.tif", kind, dtype, **layout)
        assert np.array_equal(read_in_windows(path, samples), pixels_of(samples, dtype))


def test_deep_colors(tmp_path):
    path = written(tmp_path / "a.tif", "RGB and alpha", np.uint16)
    assert np.array_equal(read_in_windows(path, 3), pixels_of(4, np.uint16)[..., :3])
    with pytest.raises(DataError), open_source(written(tmp_path / "b.tif", "RGB and premultiplied alpha", np.uint16)):
        pass


def test_a_mask_page_is_passed_over(tmp_path):
    image = pixels_of(3)
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(image, photometric="rgb", tile=(32, 32), metadata=None)
        file.write(np.ones((HEIGHT, WIDTH), bool), photometric="mask", subfiletype=4, metadata=None)
    assert np.array_equal(read_in_windows(tmp_path / "a.tif", 3), image)


class Chunked:
    """An array in chunks that counts how often each is decoded, as zarr would."""

    def __init__(self, values, chunks):
        self.values, self.chunks, self.decoded = values, chunks, []
        self.shape, self.dtype = values.shape, values.dtype

    def __getitem__(self, key):
        rows, columns = key
        (tall, wide), (height, width) = self.chunks[:2], self.shape[:2]
        (top, bottom, _), (left, right, _) = rows.indices(height), columns.indices(width)
        self.decoded += itertools.product(
            range(top // tall, -(-bottom // tall)), range(left // wide, -(-right // wide))
        )
        return self.values[key]


@pytest.mark.parametrize("chunks", [(7, 90, 3), (32, 32, 3), (75, 10, 1), (50, 60, 3)])
def test_statistics_of_a_chunked_array_decode_each_chunk_once(monkeypatch, chunks):
    monkeypatch.setattr(array_source, "BLOCK", 1000)
    stored = Chunked(pixels_of(3), chunks)
    with open_source(stored) as image:
        total = sum(int(block.sum(dtype=np.int64)) for block in image.blocks())
    assert len(stored.decoded) == len(set(stored.decoded)) and total == pixels_of(3).sum(dtype=np.int64)


@pytest.mark.parametrize("kind", hostile_tiffs())
def test_hostile_tiffs_are_refused_at_once(tmp_path, kind):
    (tmp_path / "a.tif").write_bytes(hostile_tiffs()[kind])
    began = time.process_time()
    with pytest.raises(UnetzooError), open_source(tmp_path / "a.tif") as image:
        image.read(0, 4, 0, 4)
    assert time.process_time() - began < 2


@pytest.mark.parametrize("layout", [{"tile": (32, 32)}, {"rowsperstrip": 4}], ids=["tiles", "strips"])
def test_statistics_decode_each_segment_once(tmp_path, monkeypatch, layout):
    path = written(tmp_path / "a.tif", "RGB", **layout)
    decoded = []
    decode = TiffSource._decode
    monkeypatch.setattr(TiffSource, "_decode", lambda self, *place: decoded.append(place) or decode(self, *place))
    with open_source(path, 3) as image:
        total = sum(int(block.sum(dtype=np.int64)) for block in image.blocks())
    assert len(decoded) == len(set(decoded)) and total == pixels_of(3).sum(dtype=np.int64)


def test_neighboring_windows_share_decoded_segments(tmp_path, monkeypatch):
    path = written(tmp_path / "a.tif", "RGB", tile=(32, 32))
    decoded = []
    decode = TiffSource._decode
    monkeypatch.setattr(TiffSource, "_decode", lambda self, *place: decoded.append(place) or decode(self, *place))
    with open_source(path, 3) as image:
        image.cache(20)
        for left in range(0, WIDTH - 20, 10):
            image.read(22, 42, left, left + 20)
        assert len(decoded) == len(set(decoded))
        assert image.cache_bytes(20) == 4 * 32 * 32 * 3


def test_pillow_s_orientation_is_refused_in_windows(tmp_path):
    Image.fromarray(pixels_of(3)).save(tmp_path / "a.tif", tiffinfo={274: 6})
    with pytest.raises(DataError) as caught, open_source(tmp_path / "a.tif"):
        pass
    assert caught.value.found == 6 and caught.value.hint
