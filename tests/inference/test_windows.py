"""Where windows lie: goldens by hand, and properties over random geometries."""

import bisect

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from refusals import refused

import unetzoo
from unetzoo.errors import ConfigError, InputShapeError
from unetzoo.inference.stitching import span_weights
from unetzoo.inference.windows import BLENDS, canvas_length, geometry_of, minimum_tile, plan_windows
from unetzoo.models.base import Geometry

PAPER = Geometry(minimum=188, stride=16, step=16, margin=92, halo=92)


@pytest.mark.parametrize(
    ("name", "config", "margin", "halo", "smallest"),
    [
        ("unet", {}, 92, 92, 204),  # the output of 188 has 4 pixels, less than the 16 of a step
        ("unet", {"padding": "same"}, 0, 94, 208),  # 2·96 + 16: context in whole blocks of 16
        ("bnunet", {}, 0, 94, 208),
        ("bnunet", {"up": "upsample_conv"}, 0, 110, 240),
        ("r2unet", {}, 0, 298, 624),
        ("dualunet", {}, 0, 94, 208),
        ("dualunet", {"out_stride": 2}, 0, 94, 208),
    ],
)
def test_goldens_at_four_poolings(name, config, margin, halo, smallest):
    geometry = geometry_of(unetzoo.build(name, encoder_channels=(2, 2, 2, 2, 2), **config))
    assert (geometry.margin, geometry.halo, minimum_tile(geometry)) == (margin, halo, smallest)
    assert minimum_tile(geometry, "gaussian") == geometry.minimum
    plan_windows(geometry, (2000, 2000), tile=smallest)
    with refused(ConfigError, hint=f"tile={smallest}"):
        plan_windows(geometry, (2000, 2000), tile=smallest - 1)


def test_the_papers_tiles_by_hand():
    plan = plan_windows(PAPER, (760, 1), tile=572)
    assert (plan.rows.before, plan.rows.length, plan.columns.length) == (92, 956, 188)  # 760 + 184 = 944 → 188 + 16·48
    assert [(s.start, s.stop, s.first, s.keep) for s in plan.rows.spans] == [
        (0, 572, 0, range(0, 388)),
        (384, 956, 384, range(388, 760)),
    ]
    assert [tuple(s) for s in plan.columns.spans] == [(0, 188, 0, range(0, 1))]


def test_exact_windows_are_no_larger_than_their_number_needs():
    plan = plan_windows(PAPER, (512, 1), tile=572)  # two of 572 reach 960, two of 444 just the 700 that there are
    assert [(s.start, s.stop, s.keep) for s in plan.rows.spans] == [(0, 444, range(260)), (256, 700, range(260, 512))]
    blended = plan_windows(PAPER, (512, 1), tile=572, blend="gaussian")  # as large as the network was trained on
    assert {s.stop - s.start for s in blended.rows.spans} == {572}


def test_padded_windows_by_hand():
    geometry = Geometry(minimum=4, stride=4, halo=22)
    plan = plan_windows(geometry, (99, 57), tile=(59, 200))  # 59 → 56: 24 + 8 + 24
    assert plan.rows.length == 100 and plan.rows.before == 0
    assert [(s.start, s.stop, s.keep) for s in plan.rows.spans][:3] == [
        (0, 56, range(0, 32)),
        (8, 64, range(32, 40)),
        (16, 72, range(40, 48)),
    ]
    assert [(s.start, s.stop, s.keep) for s in plan.rows.spans][-1] == (44, 100, range(72, 99))
    assert [(s.start, s.stop, s.keep) for s in plan.columns.spans] == [(0, 60, range(0, 57))]


@st.composite
def geometries(draw):
    out_stride = draw(st.sampled_from([1, 1, 2]))
    stride = draw(st.sampled_from([1, 2, 4, 8, 16])) * out_stride
    margin = draw(st.integers(0, 40))
    step = draw(st.sampled_from([1, stride]))
    if margin:
        margin, step = margin * out_stride, stride
    minimum = 2 * margin + draw(st.integers(1, 3)) * stride + (draw(st.integers(0, 3)) * out_stride if margin else 0)
    halo = margin + draw(st.sampled_from([0, 0, 1, 5, 30]))
    return Geometry(minimum=minimum, stride=stride, step=step, margin=margin, out_stride=out_stride, halo=halo)


@given(geometries(), st.integers(1, 500), st.integers(0, 300), st.sampled_from(BLENDS))
def test_windows_are_legal_and_cover_each_pixel(geometry, size, extra, blend):
    tile = minimum_tile(geometry, blend) + extra
    axis = plan_windows(geometry, (size, 1), tile=(tile, 1000), blend=blend).rows
    grid = geometry.stride * geometry.out_stride
    assert axis.length == canvas_length(geometry, size) >= size + 2 * axis.before and axis.before == geometry.margin
    assert axis.output == max(1, size // geometry.out_stride)
    written = [0] * axis.output
    for span in axis.spans:
        assert 0 <= span.start < span.stop <= axis.length and span.stop - span.start <= max(tile, axis.length)
        assert geometry.accepts(span.stop - span.start)
        assert span.first * geometry.out_stride == span.start
        assert span.first <= span.keep.start < span.keep.stop <= span.first + geometry.output(span.stop - span.start)
        for pixel in span.keep:
            written[pixel] += 1
        if blend == "exact":
            assert span.start % geometry.stride == 0
            _has_context(geometry, axis, span, grid)
    window = axis.spans[0].stop - axis.spans[0].start
    if blend == "exact" and len(axis.spans) > 1 and window > minimum_tile(geometry):
        smaller = plan_windows(geometry, (size, 1), tile=(window - 1, 1000)).rows
        assert len(smaller.spans) > len(axis.spans)
    assert set(written) == {1} if blend == "exact" else min(written) >= 1
    if blend != "exact":
        total = [0.0] * axis.output
        for span, weight in zip(axis.spans, span_weights(axis, blend), strict=True):
            for pixel, value in zip(span.keep, weight.tolist(), strict=True):
                assert value > 0
                total[pixel] += value
        assert total == pytest.approx([1.0] * axis.output)


def _has_context(geometry, axis, span, grid):
    """Around each block of one stride that it writes, a window has `halo` pixels or ends with the canvas."""
    halo, margin, scale = geometry.halo, geometry.margin, geometry.out_stride
    if halo == margin:
        return  # the whole output is valid
    for pixel in (span.keep.start, span.keep.stop - 1):
        block = pixel * scale // geometry.stride * geometry.stride
        assert span.start == 0 or block + margin - halo >= span.start
        assert span.stop == axis.length or block + geometry.stride + margin + halo <= span.stop


def test_a_side_that_covers_the_canvas_needs_no_core():
    geometry = Geometry(minimum=16, stride=16, halo=94)
    plan = plan_windows(geometry, (64, 1000), tile=(64, 240))
    assert len(plan.rows.spans) == 1 and len(plan.columns.spans) > 4
    assert len(list(plan.windows())) == len(plan.columns.spans)
    with refused(ConfigError, expected="(64, 208)", found="(64, 192)"):
        plan_windows(geometry, (64, 1000), tile=(64, 192))


@pytest.mark.parametrize("tile", [0, -5, True, 2.5, "64", (64,), (64, 64, 64), (64, 0), (64, None)])
def test_invalid_tiles_are_refused(tile):
    with refused(ConfigError, found=repr(tile)):
        plan_windows(PAPER, (50, 50), tile=tile)


def test_networks_without_exact_windows_are_tiled_by_blending_only():
    for net in (
        unetzoo.build("bnunet", up="bilinear", encoder_channels=(4, 4, 4)),
        unetzoo.build("smp-unet", encoder_name="resnet18"),
        object(),
    ):
        geometry = geometry_of(net)
        assert minimum_tile(geometry) is None
        with refused(ConfigError, hint='blend="gaussian"'):
            plan_windows(geometry, (500, 500), tile=256)
        assert len(plan_windows(geometry, (500, 500), tile=256, blend="gaussian").rows.spans) == 3
        assert len(plan_windows(geometry, (500, 500)).rows.spans) == 1
    assert geometry_of(unetzoo.build("smp-unet", encoder_name="resnet18")).stride == 32


def test_a_network_of_one_size():
    geometry = Geometry(minimum=256, maximum=256, stride=256)
    assert plan_windows(geometry, (100, 256)).rows.length == 256
    with refused(InputShapeError, expected=256, hint='tile=256, blend="gaussian"'):
        plan_windows(geometry, (100, 257))
    plan = plan_windows(geometry, (300, 100), tile=1000, blend="gaussian")
    assert [(s.start, s.stop) for s in plan.rows.spans] == [(0, 256), (192, 448), (256, 512)]
    with refused(ConfigError, hint='blend="gaussian"'):
        plan_windows(Geometry(minimum=64, maximum=64, stride=64, halo=30), (300, 100), tile=64)


def test_unknown_blend_and_empty_images():
    with refused(ConfigError, hint="'gaussian'"):
        plan_windows(PAPER, (5, 5), blend="gausian")
    with refused(InputShapeError, found="0×5"):
        plan_windows(PAPER, (0, 5))


VARIANTS = [
    ("unet", {}),
    ("unet", {"padding": "same"}),
    ("bnunet", {"up": "upsample_conv"}),
    ("bnunet", {"up": "bilinear"}),
    ("r2unet", {}),
    ("ddunet", {}),
    ("dualunet", {}),
    ("dualunet", {"out_stride": 2}),
    ("dualunet", {"variant": "original"}),
]


@pytest.mark.parametrize(("name", "config"), VARIANTS, ids=str)
def test_geometries_hold_for_thousands_of_sizes(name, config):
    for depth in (2, 4):
        geometry = unetzoo.build(name, encoder_channels=(2,) * (depth + 1), **config).geometry
        legal = [n for n in range(1, 3200) if geometry.accepts(n)]
        assert legal[0] == geometry.minimum
        on_grid = [n for n in legal if geometry.step > 1 or n % geometry.stride == 0]
        for size in range(1, 2500):
            wanted = max(size, geometry.out_stride) + 2 * geometry.margin
            place = bisect.bisect_left(legal, size)
            assert geometry.fit(size) == legal[place]
            assert geometry.neighbors(size) == tuple(
                legal[max(0, place - 1) : place + 1] if legal[place] > size else legal[place : place + 1]
            )
            length = canvas_length(geometry, size)
            assert length == on_grid[bisect.bisect_left(on_grid, wanted)]
            assert geometry.output(length) >= max(1, size // geometry.out_stride)


@pytest.mark.parametrize(("name", "config"), VARIANTS, ids=str)
def test_networks_agree_with_their_geometry(name, config):
    torch.manual_seed(0)
    net = unetzoo.build(name, in_channels=1, classes=2, encoder_channels=(2, 2, 2), **config).eval()
    geometry = net.geometry
    other = geometry.fit(1)
    for size in range(1, 130):
        x = torch.zeros(1, 1, size, other)
        if not geometry.accepts(size):
            with pytest.raises(InputShapeError):
                net(x)
            continue
        with torch.inference_mode():
            answer = net(x)
        for head in [answer] if isinstance(answer, torch.Tensor) else answer:
            assert tuple(head.shape[2:]) == (geometry.output(size), geometry.output(other)), size
