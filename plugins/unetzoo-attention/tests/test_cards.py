"""What the cards state: numbers from papers and public code, derived again by hand, and measured."""

import pytest
import torch

import unetzoo

NAMES = ["attention-unet", "r2attention-unet", "unetplusplus", "resunet", "u2net", "u2net-small"]


def conv(inputs, outputs, kernel=3):
    """A convolution with bias."""
    return inputs * outputs * kernel**2 + outputs


def norm(*widths):
    """Scale and shift of batch norms."""
    return 2 * sum(widths)


def unit(inputs, outputs):
    return conv(inputs, outputs) + norm(outputs)


def attention_unet():
    """LeeJunHyun: five double convolutions, four up-convolutions, gates and double convolutions, a 1×1 head."""
    widths, total = (64, 128, 256, 512, 1024), 65
    for inputs, outputs in zip((3, *widths), widths, strict=False):
        total += unit(inputs, outputs) + unit(outputs, outputs)
    for fine in widths[:-1]:
        total += unit(2 * fine, fine) + gate(fine) + unit(2 * fine, fine) + unit(fine, fine)
    return total


def gate(width):
    inner = width // 2
    return 2 * (conv(width, inner, 1) + norm(inner)) + conv(inner, 1, 1) + norm(1)


def r2attention_unet():
    """LeeJunHyun: as above, of a 1×1 convolution and two convolutions that are used again and again."""
    widths, total = (64, 128, 256, 512, 1024), 65
    for inputs, outputs in zip((3, *widths), widths, strict=False):
        total += conv(inputs, outputs, 1) + 2 * unit(outputs, outputs)
    for fine in widths[:-1]:
        total += unit(2 * fine, fine) + gate(fine) + conv(2 * fine, fine, 1) + 2 * unit(fine, fine)
    return total


def nested(in_channels, bilinear=False, normed=True):
    """Fifteen nodes of two convolutions; ten up-samplings."""
    widths = (32, 64, 128, 256, 512)
    total = 33
    for level, width in enumerate(widths):
        for place in range(5 - level):
            if place == 0:
                inputs = widths[level - 1] if level else in_channels
            else:
                below = widths[level + 1]
                inputs = place * width + (below if bilinear else width)
                total += 0 if bilinear else conv(below, width, 2)
            total += conv(inputs, width) + conv(width, width) + (norm(width, width) if normed else 0)
    return total


def resunet():
    """Zhang 2018, table I, without biases; then projections, batch norms before the convolutions, and the head."""
    table = [(3, 64), (64, 128), (128, 256), (256, 512), (768, 256), (384, 128), (192, 64)]
    convolutions = sum(9 * (i * o + o * o) for i, o in table)
    assert round(convolutions / 1e6, 1) == 7.8  # the paper's count
    norms = norm(64) + sum(norm(i, o) for i, o in table[1:])
    return convolutions + sum(i * o for i, o in table) + norms + 65


def rsu(height, inputs, inner, outputs):
    """Figure 2: entry, way down, bottom, way up with concatenations."""
    down = unit(outputs, inner) + (height - 2) * unit(inner, inner)
    up = (height - 2) * unit(2 * inner, inner) + unit(2 * inner, outputs)
    return unit(inputs, outputs) + down + unit(inner, inner) + up


def u2net():
    """Figure 5: En_1…En_6, De_5…De_1, six side outputs, the fusion."""
    stages = [
        (7, 3, 32, 64), (6, 64, 32, 128), (5, 128, 64, 256), (4, 256, 128, 512), (4, 512, 256, 512), (4, 512, 256, 512),
        (4, 1024, 256, 512), (4, 1024, 128, 256), (5, 512, 64, 128), (6, 256, 32, 64), (7, 128, 16, 64),
    ]  # fmt: skip
    sides = sum(conv(width, 1) for width in (64, 64, 128, 256, 512, 512))
    return sum(rsu(*stage) for stage in stages) + sides + conv(6, 1, 1)


def u2net_small():
    heights = (7, 6, 5, 4, 4, 4, 4, 4, 5, 6, 7)
    inputs = (3, *[64] * 5, *[128] * 5)
    total = sum(rsu(height, width, 16, 64) for height, width in zip(heights, inputs, strict=True))
    return total + 6 * conv(64, 1) + conv(6, 1, 1)


@pytest.mark.parametrize(
    ("name", "options", "by_hand", "published"),
    [
        ("attention-unet", {}, attention_unet(), 34_878_573),
        ("r2attention-unet", {}, r2attention_unet(), 39_442_925),
        ("unetplusplus", {"in_channels": 1, "norm": False}, nested(1, normed=False), 9_041_601),
        ("unetplusplus", {"up": "bilinear"}, nested(3, bilinear=True), 9_163_329),
        ("unetplusplus", {}, nested(3), 9_049_473),
        ("unetplusplus", {"deep_supervision": True}, nested(3) + 3 * 32, None),
        ("resunet", {}, resunet(), 8_216_769),
        ("u2net", {}, u2net(), 44_009_869),
        ("u2net-small", {}, u2net_small(), 1_131_181),
    ],
)
def test_parameters_are_those_of_the_published_networks(name, options, by_hand, published):
    with torch.device("meta"):
        counted = sum(p.numel() for p in unetzoo.build(name, **options).parameters())
    assert counted == by_hand
    assert published in (None, by_hand)


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_of_a_card_is_measured_again(name):
    model = unetzoo.MODELS.get(name)
    assert model.card.deviations
    for fact in model.card.facts:
        assert fact.agrees(fact.measure(model)), fact.name


def test_a_small_u2net_is_saved_under_its_own_name(tmp_path):
    six = {"encoder_channels": [2] * 6, "mid_channels": [2] * 6, "decoder_mid_channels": [2] * 5}
    net = unetzoo.build("u2net-small", classes=2, **six).eval()
    net.save_pretrained(tmp_path)
    again = unetzoo.from_pretrained(tmp_path)
    assert type(again) is type(net)
    x = torch.randn(1, 3, 33, 40)
    torch.testing.assert_close(again(x), net(x))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("attention-unet", {"gates": "fine"}),
        ("attention-unet", {"encoder_channels": [8]}),
        ("r2attention-unet", {"t": 0}),
        ("r2attention-unet", {"encoder_channels": [8, 0]}),
        ("unetplusplus", {"up": "nearest"}),
        ("resunet", {"encoder_channels": []}),
        ("resunet", {"encoder_channels": 64}),
        ("u2net", {"encoder_channels": [8] * 5}),
        ("u2net", {"decoder_mid_channels": [8] * 6}),
        ("u2net-small", {"mid_channels": [8.0] * 6}),
        ("resunet", {"classes": 0}),
        ("u2net", {"classes": 0}),
    ],
)
def test_wrong_arguments_are_refused(name, options):
    with pytest.raises(unetzoo.errors.ConfigError):
        unetzoo.build(name, **options)
