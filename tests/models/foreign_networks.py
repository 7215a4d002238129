"""Other authors' networks, rewritten from their computations and the names of their tensors: small, and only to
produce checkpoints and answers that ours must repeat."""

import torch
import torch.nn.functional as F
from torch import nn


def chain(*layers):
    return nn.Sequential(*layers)


def conv3(i, o, bias=True, dilation=1, padding=1):
    return nn.Conv2d(i, o, 3, padding=padding, dilation=dilation, bias=bias)


def twice(i, o, mid=None, bias=True, act=nn.ReLU):
    mid = mid or o
    return chain(conv3(i, mid, bias), nn.BatchNorm2d(mid), act(), conv3(mid, o, bias), nn.BatchNorm2d(o), act())


class Wrapped(nn.Module):
    """A module that holds another under a name of its author's choice."""

    def __init__(self, name, inner):
        super().__init__()
        self.name = name
        self.add_module(name, inner)

    def forward(self, x):
        return getattr(self, self.name)(x)


class Milesial(nn.Module):
    act = nn.ReLU

    def __init__(self, channels=3, classes=1, widths=(4, 8, 16, 32, 64), bilinear=False, bias=False):
        super().__init__()
        half = 2 if bilinear else 1
        self.bilinear, self.depth = bilinear, len(widths) - 1

        def unit(i, o, mid=None):
            return Wrapped("double_conv", twice(i, o, mid, bias, self.act))

        self.inc = unit(channels, widths[0])
        for level in range(1, len(widths)):
            out = widths[level] // (half if level == self.depth else 1)
            self.add_module(
                f"down{level}", Wrapped("maxpool_conv", chain(nn.MaxPool2d(2), unit(widths[level - 1], out)))
            )
        for step in range(1, len(widths)):
            fine = widths[self.depth - step]
            out = fine // (half if step < self.depth else 1)
            up = nn.Module()
            if bilinear:
                up.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
                up.conv = unit(2 * fine, out, fine)
            else:
                up.up = nn.ConvTranspose2d(2 * fine, fine, 2, stride=2)
                up.conv = unit(2 * fine, fine)
            self.add_module(f"up{step}", up)
        self.outc = Wrapped("conv", nn.Conv2d(widths[0], classes, 1))

    def forward(self, x):
        maps = [self.inc(x)]
        for level in range(1, self.depth + 1):
            maps.append(getattr(self, f"down{level}")(maps[-1]))
        x = maps.pop()
        for step in range(1, self.depth + 1):
            skip, up = maps.pop(), getattr(self, f"up{step}")
            x = up.up(x)
            rows, columns = skip.shape[2] - x.shape[2], skip.shape[3] - x.shape[3]
            x = F.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
            x = up.conv(torch.cat([skip, x], 1))
        return self.outc(x)


class Lee(nn.Module):
    """U_Net and, recurrent, R2U_Net: levels are counted from 1; decoders have the number of the level they leave."""

    def __init__(self, channels=3, classes=1, widths=(4, 8, 16, 32, 64), recurrent=False, t=2):
        super().__init__()
        self.unit = "RRCNN" if recurrent else "Conv"
        self.up_unit = "Up_RRCNN" if recurrent else "Up_conv"
        self.levels = len(widths)

        def unit(i, o):
            return RecurrentUnit(i, o, t) if recurrent else Wrapped("conv", twice(i, o))

        for level, (i, o) in enumerate(zip((channels, *widths), widths, strict=False), 1):
            self.add_module(f"{self.unit}{level}", unit(i, o))
        for level in range(self.levels, 1, -1):
            coarse, fine = widths[level - 1], widths[level - 2]
            up = chain(nn.Upsample(scale_factor=2), conv3(coarse, fine), nn.BatchNorm2d(fine), nn.ReLU())
            self.add_module(f"Up{level}", Wrapped("up", up))
            self.add_module(f"{self.up_unit}{level}", unit(coarse, fine))
        self.Conv_1x1 = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        maps = []
        for level in range(1, self.levels + 1):
            x = getattr(self, f"{self.unit}{level}")(x if level == 1 else F.max_pool2d(x, 2))
            maps.append(x)
        for level in range(self.levels, 1, -1):
            x = getattr(self, f"Up{level}")(x)
            x = getattr(self, f"{self.up_unit}{level}")(torch.cat([maps[level - 2], x], 1))
        return self.Conv_1x1(x)


class RecurrentUnit(nn.Module):
    def __init__(self, i, o, t):
        super().__init__()
        self.t = t
        self.RCNN = chain(*(Wrapped("conv", chain(conv3(o, o), nn.BatchNorm2d(o), nn.ReLU())) for _ in range(2)))
        self.Conv_1x1 = nn.Conv2d(i, o, 1)

    def forward(self, x):
        x = start = self.Conv_1x1(x)
        for layer in self.RCNN:
            answer = layer(x)
            for _ in range(self.t):
                answer = layer(x + answer)
            x = answer
        return start + x


class Mateuszbuda(nn.Module):
    def __init__(self, channels=3, classes=1, first=4):
        super().__init__()
        widths = [first * 2**level for level in range(5)]

        def unit(i, o, name):
            block = nn.Sequential()
            for number, inputs in ((1, i), (2, o)):
                block.add_module(f"{name}conv{number}", conv3(inputs, o, bias=False))
                block.add_module(f"{name}norm{number}", nn.BatchNorm2d(o))
                block.add_module(f"{name}relu{number}", nn.ReLU())
            return block

        for level in range(1, 5):
            inputs = channels if level == 1 else widths[level - 2]
            self.add_module(f"encoder{level}", unit(inputs, widths[level - 1], f"enc{level}"))
        self.bottleneck = unit(widths[3], widths[4], "bottleneck")
        for level in range(4, 0, -1):
            fine = widths[level - 1]
            self.add_module(f"upconv{level}", nn.ConvTranspose2d(2 * fine, fine, 2, stride=2))
            self.add_module(f"decoder{level}", unit(2 * fine, fine, f"dec{level}"))
        self.conv = nn.Conv2d(first, classes, 1)

    def forward(self, x):
        skips = []
        for level in range(1, 5):
            skips.append(getattr(self, f"encoder{level}")(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottleneck(x)
        for level in range(4, 0, -1):
            x = torch.cat([getattr(self, f"upconv{level}")(x), skips[level - 1]], 1)
            x = getattr(self, f"decoder{level}")(x)
        return self.conv(x).sigmoid()


def act_then_norm(i, o, dilation=1):
    return chain(*(
        layer for inputs in (i, o)
        for layer in (conv3(inputs, o, dilation=dilation), nn.ReLU(), nn.BatchNorm2d(o))
    ))  # fmt: skip


class CityscapesUNet(nn.Module):
    def __init__(self, classes=19, widths=(4, 8, 16, 32, 64)):
        super().__init__()
        self.levels = len(widths)
        for level, (i, o) in enumerate(zip((3, *widths), widths, strict=False), 1):
            self.add_module(f"conv_down{level}", act_then_norm(i, o))
        for level in range(self.levels - 1, 0, -1):
            self.add_module(f"conv_up{level}", act_then_norm(widths[level - 1] + widths[level], widths[level - 1]))
        self.conv_last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        maps = []
        for level in range(1, self.levels + 1):
            x = getattr(self, f"conv_down{level}")(x if level == 1 else F.max_pool2d(x, 2))
            maps.append(x)
        for level in range(self.levels - 1, 0, -1):
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
            x = getattr(self, f"conv_up{level}")(torch.cat([x, maps[level - 1]], 1))
        return self.conv_last(x)


class CityscapesDDUNet(nn.Module):
    def __init__(self, classes=19, widths=(4, 8, 16, 32)):
        super().__init__()
        inputs = (3, *widths)
        for level, dilation in enumerate((1, 1, 3, 3), 1):
            self.add_module(f"conv_down{level}", act_then_norm(inputs[level - 1], widths[level - 1], dilation))
        for level, (kernel, padding) in ((3, (3, 2)), (2, (3, 8)), (1, (2, 0))):
            coarse = widths[level]
            self.add_module(
                f"conv_transpose{level}", nn.ConvTranspose2d(coarse, coarse, kernel, stride=kernel, padding=padding)
            )
        for level, dilation in ((3, 3), (2, 1), (1, 1)):
            i, o = widths[level - 1] + widths[level], widths[level - 1]
            self.add_module(f"conv_up{level}", act_then_norm(i, o, dilation))
        self.conv_last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        maps = []
        for level in range(1, 5):
            x = getattr(self, f"conv_down{level}")(x if level == 1 else F.max_pool2d(x, 2))
            maps.append(x)
        for level in range(3, 0, -1):
            x = torch.cat([getattr(self, f"conv_transpose{level}")(x), maps[level - 1]], 1)
            x = getattr(self, f"conv_up{level}")(x)
        return self.conv_last(x)


class CityscapesR2UNet(nn.Module):
    def __init__(self, classes=19, widths=(4, 8, 16, 32, 64)):
        super().__init__()

        def unit(i, o):
            block = nn.Module()
            block.rec_block1 = Wrapped("rec_conv", chain(conv3(o, o), nn.ReLU()))
            block.rec_block2 = Wrapped("rec_conv", chain(conv3(o, o), nn.ReLU()))
            block.forward_conv = chain(conv3(i, o), nn.ReLU())
            return block

        self.enc_list = nn.ModuleList(unit(i, o) for i, o in zip((3, *widths), widths, strict=False))
        downwards = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.dec_list = nn.ModuleList(unit(coarse, fine) for coarse, fine in downwards)
        self.trans_conv_list = nn.ModuleList(nn.ConvTranspose2d(c, c, 2, stride=2) for c, _ in downwards)
        self.conv1x1 = chain(nn.Conv2d(widths[0], classes, 1), nn.Identity())

    @staticmethod
    def run(block, x):
        x = start = block.forward_conv(x)
        for layer in (block.rec_block1, block.rec_block2):
            x = layer(layer(x) + x)
        return start + x

    def forward(self, x):
        maps = []
        for level, block in enumerate(self.enc_list):
            x = self.run(block, F.max_pool2d(x, 2) if level else x)
            maps.append(x)
        for block, up, skip in zip(self.dec_list, self.trans_conv_list, maps[-2::-1], strict=True):
            x = self.run(block, up(x)) + skip
        return self.conv1x1(x)


class Helen(Milesial):
    """The names, the biases and the padding are milesial's older network's; the activation is not."""

    def __init__(self, classes=11):
        super().__init__(classes=classes, bias=True)

    @staticmethod
    def act():
        return nn.LeakyReLU(0.05)


class Renamed(nn.Module):
    """A U-Net with unknown names, whose decoder levels are adjacent."""

    def __init__(self, classes=1, widths=(4, 8, 16)):
        super().__init__()
        self.left = nn.ModuleList(twice(i, o) for i, o in zip((3, *widths), widths, strict=False))
        self.right = nn.ModuleList(
            nn.ModuleList([nn.ConvTranspose2d(2 * fine, fine, 2, stride=2), twice(2 * fine, fine)])
            for fine in widths[-2::-1]
        )
        self.last = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x):
        maps = []
        for level, block in enumerate(self.left):
            x = block(F.max_pool2d(x, 2) if level else x)
            maps.append(x)
        for (up, block), skip in zip(self.right, maps[-2::-1], strict=True):
            x = block(torch.cat([skip, up(x)], 1))
        return self.last(x)
