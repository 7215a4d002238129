"""The cited authors' networks, written anew from what they compute and how their tensors are called: narrow, and only
to produce checkpoints and outputs that ours must repeat."""

import torch
import torch.nn.functional as F
from torch import nn


def unit(i, o, kernel=3):
    return [nn.Conv2d(i, o, kernel, padding=kernel // 2), nn.BatchNorm2d(o)]


class Holder(nn.Module):
    """Modules under names of their author's choice."""

    def __init__(self, **modules):
        super().__init__()
        for name, module in modules.items():
            self.add_module(name, module)


def double(i, o):
    return Holder(conv=nn.Sequential(*unit(i, o), nn.ReLU(), *unit(o, o), nn.ReLU()))


def recurrent(i, o):
    cells = (Holder(conv=nn.Sequential(*unit(o, o), nn.ReLU())) for _ in range(2))
    return Holder(RCNN=nn.Sequential(*cells), Conv_1x1=nn.Conv2d(i, o, 1))


class LeeAttention(nn.Module):
    """AttU_Net, and with `t` R2AttU_Net."""

    def __init__(self, channels=3, classes=1, widths=(4, 8, 16, 32, 64), t=None):
        super().__init__()
        self.t, self.levels = t, len(widths)
        self.down, self.up = ("Conv", "Up_conv") if t is None else ("RRCNN", "Up_RRCNN")
        make = double if t is None else recurrent
        for level, (i, o) in enumerate(zip((channels, *widths), widths, strict=False), 1):
            self.add_module(f"{self.down}{level}", make(i, o))
        for level in range(self.levels, 1, -1):
            coarse, fine = widths[level - 1], widths[level - 2]
            inner = fine // 2
            up = nn.Sequential(nn.Upsample(scale_factor=2), *unit(coarse, fine), nn.ReLU())
            gate = Holder(
                W_g=nn.Sequential(*unit(fine, inner, 1)),
                W_x=nn.Sequential(*unit(fine, inner, 1)),
                psi=nn.Sequential(*unit(inner, 1, 1), nn.Sigmoid()),
            )
            self.add_module(f"Up{level}", Holder(up=up))
            self.add_module(f"Att{level}", gate)
            self.add_module(f"{self.up}{level}", make(2 * fine, fine))
        self.Conv_1x1 = nn.Conv2d(widths[0], classes, 1)

    def run(self, block, x):
        if self.t is None:
            return block.conv(x)
        x = start = block.Conv_1x1(x)
        for cell in block.RCNN:
            y = cell.conv(x)
            for _ in range(self.t):
                y = cell.conv(x + y)
            x = y
        return start + x

    def forward(self, x):
        maps = []
        for level in range(1, self.levels + 1):
            x = self.run(getattr(self, f"{self.down}{level}"), F.max_pool2d(x, 2) if maps else x)
            maps.append(x)
        for level in range(self.levels, 1, -1):
            x, skip, gate = getattr(self, f"Up{level}").up(x), maps[level - 2], getattr(self, f"Att{level}")
            skip = skip * gate.psi(F.relu(gate.W_g(x) + gate.W_x(skip)))
            x = self.run(getattr(self, f"{self.up}{level}"), torch.cat([skip, x], 1))
        return self.Conv_1x1(x)


class NestedUNet(nn.Module):
    def __init__(self, channels=3, classes=1, widths=(4, 8, 16, 32, 64)):
        super().__init__()
        self.depth = len(widths) - 1
        for j in range(self.depth + 1):
            for i in range(self.depth + 1 - j):
                below = (widths[i - 1] if i else channels) if j == 0 else widths[i] * j + widths[i + 1]
                o = widths[i]
                self.add_module(
                    f"conv{i}_{j}",
                    Holder(
                        conv1=nn.Conv2d(below, o, 3, padding=1), bn1=nn.BatchNorm2d(o),
                        conv2=nn.Conv2d(o, o, 3, padding=1), bn2=nn.BatchNorm2d(o),
                    ),
                )  # fmt: skip
        self.final = nn.Conv2d(widths[0], classes, 1)

    def node(self, name, x):
        block = getattr(self, f"conv{name}")
        return block.bn2(block.conv2(block.bn1(block.conv1(x)).relu())).relu()

    def forward(self, x):
        rows = []
        for i in range(self.depth + 1):
            rows.append([self.node(f"{i}_0", F.max_pool2d(rows[-1][0], 2) if rows else x)])
        for j in range(1, self.depth + 1):
            for i in range(self.depth + 1 - j):
                below = F.interpolate(rows[i + 1][j - 1], scale_factor=2, mode="bilinear", align_corners=True)
                rows[i].append(self.node(f"{i}_{j}", torch.cat([*rows[i], below], 1)))
        return self.final(rows[0][-1])


def like(x, other):
    return F.interpolate(x, size=other.shape[2:], mode="bilinear", align_corners=False)


class ResidualU(nn.Module):
    """RSU of a height: pooling between its levels, or (RSU-4F) dilation."""

    def __init__(self, height, i, mid, o, dilated=False):
        super().__init__()
        self.height, self.dilated = height, dilated

        def layer(i, o, dilation=1):
            return Holder(conv_s1=nn.Conv2d(i, o, 3, padding=dilation, dilation=dilation), bn_s1=nn.BatchNorm2d(o))

        self.rebnconvin = layer(i, o)
        for n in range(1, height + 1):
            dilation = 2 ** (n - 1) if dilated else 1 + (n == height)
            self.add_module(f"rebnconv{n}", layer(o if n == 1 else mid, mid, dilation))
        for n in range(height - 1, 0, -1):
            self.add_module(f"rebnconv{n}d", layer(2 * mid, mid if n > 1 else o, 2 ** (n - 1) if dilated else 1))

    def run(self, name, x):
        layer = getattr(self, f"rebnconv{name}")
        return layer.bn_s1(layer.conv_s1(x)).relu()

    def forward(self, x):
        start = self.run("in", x)
        maps = [self.run(1, start)]
        for n in range(2, self.height + 1):
            pooled = n < self.height and not self.dilated
            maps.append(self.run(n, F.max_pool2d(maps[-1], 2, ceil_mode=True) if pooled else maps[-1]))
        x = maps.pop()
        for n in range(self.height - 1, 0, -1):
            skip = maps.pop()
            x = self.run(f"{n}d", torch.cat([like(x, skip), skip], 1))
        return x + start


class U2NET(nn.Module):
    """The two networks of the authors differ only in their widths."""

    def __init__(self, widths, mids, decoder_mids, channels=3, classes=1):
        super().__init__()
        heights = (7, 6, 5, 4, 4, 4)
        for n in range(6):
            i = widths[n - 1] if n else channels
            self.add_module(f"stage{n + 1}", ResidualU(heights[n], i, mids[n], widths[n], dilated=n > 3))
        outputs = (widths[0], *widths[:4])
        for n in range(4, -1, -1):
            below = widths[5] if n == 4 else outputs[n + 1]
            unit = ResidualU(heights[n], below + widths[n], decoder_mids[n], outputs[n], dilated=n > 3)
            self.add_module(f"stage{n + 1}d", unit)
        for n, width in enumerate((*outputs, widths[5]), 1):
            self.add_module(f"side{n}", nn.Conv2d(width, classes, 3, padding=1))
        self.outconv = nn.Conv2d(6 * classes, classes, 1)

    def forward(self, x):
        maps = []
        for n in range(1, 7):
            x = getattr(self, f"stage{n}")(F.max_pool2d(x, 2, ceil_mode=True) if maps else x)
            maps.append(x)
        decoded = {6: maps.pop()}
        for n in range(5, 0, -1):
            skip = maps.pop()
            decoded[n] = getattr(self, f"stage{n}d")(torch.cat([like(decoded[n + 1], skip), skip], 1))
        sides = [getattr(self, f"side{n}")(decoded[n]) for n in range(1, 7)]
        return self.outconv(torch.cat([like(side, sides[0]) for side in sides], 1)).sigmoid()
