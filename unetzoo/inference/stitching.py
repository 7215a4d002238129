"""Combine the outputs of windows into the output for the image, in pieces that are yielded once they are final."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from .merging import Heads
from .windows import Axis, Blend, Span, WindowPlan

SIGMA = 1 / 8  # of a window's output, as nnU-Net weights its windows (Isensee et al. 2021)

WindowOutputs = Iterable[tuple[Span, Span, Heads]]  # rows, columns, the kept part of the output


class Piece(NamedTuple):
    """A final part of the image's output.

    Args:
        rows: Its rows in the image's output.
        columns: Its columns.
        heads: Its values, (C, rows, columns) per head.
    """

    rows: range
    columns: range
    heads: Heads


def pieces(plan: WindowPlan, windows: WindowOutputs, blend: Blend) -> Iterator[Piece]:
    """The output in pieces that do not overlap; the pieces of a row of windows have the same rows.

    Args:
        plan: Positions of the windows.
        windows: The kept parts of their outputs, in the plan's order.
        blend: "exact" takes each pixel from one window; otherwise overlapping windows are added with weights that sum
            to one at each pixel, in at least float32. Only sums in rows that the next windows overlap are held.
    """
    return _kept(windows) if blend == "exact" else _blended(plan, windows, blend)


def arriving(parts: Iterable[Piece]) -> Iterator[Piece]:
    """Copy pieces from a GPU to the host; each is copied, and used, while the GPU computes the next one."""
    waiting: list[tuple[Piece, torch.cuda.Event]] = []

    def arrived() -> Piece:
        piece, event = waiting.pop()
        event.synchronize()
        return piece

    for piece in parts:
        there = piece._replace(heads=tuple(head.to("cpu", non_blocking=True) for head in piece.heads))
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(piece.heads[0].device))
        if waiting:
            yield arrived()
        waiting.append((there, event))
    if waiting:
        yield arrived()


def overlap(axis: Axis) -> int:
    """The largest overlap, in pixels, of a window's output with the next one."""
    return max(
        (one.keep.stop - other.keep.start for one, other in zip(axis.spans, axis.spans[1:], strict=False)), default=0
    )


def span_weights(axis: Axis, blend: str) -> list[Tensor]:
    """Weights of each window's pixels along an axis; at each pixel they sum to one over all windows."""
    distance = torch.arange(axis.window, dtype=torch.float64, device="cpu") - (axis.window - 1) / 2
    window = torch.exp(-0.5 * (distance / (SIGMA * axis.window)) ** 2)
    if blend == "constant":
        window = torch.ones_like(window)
    raw = [window[: len(span.keep)] for span in axis.spans]  # the image may end inside the last one
    total = window.new_zeros(axis.output)
    for span, weight in zip(axis.spans, raw, strict=True):
        total[span.keep.start : span.keep.stop] += weight
    return [w / total[span.keep.start : span.keep.stop] for span, w in zip(axis.spans, raw, strict=True)]


def _kept(windows: WindowOutputs) -> Iterator[Piece]:
    return (Piece(row.keep, column.keep, heads) for row, column, heads in windows)


def _blended(plan: WindowPlan, windows: WindowOutputs, blend: str) -> Iterator[Piece]:
    weights: list[dict[Span, Tensor]] = []
    ends = [_final(axis) for axis in plan]
    below: list[Tensor] = []  # sums of the rows that the next row of windows overlaps, over the image's whole width
    left: list[Tensor] = []  # sums of the columns that the next window overlaps
    known_rows = known_columns = 0  # sums before these are in `below` and `left`
    for row, column, heads in windows:
        if column is plan.columns.spans[0]:
            left, known_columns = [], column.keep.start
            known_rows = _reached(plan.rows, row)
        weights = weights or [_weights(axis, blend, heads[0].device) for axis in plan]
        share = weights[0][row][:, None] * weights[1][column]
        sums = [_weighted(head, share) for head in heads]
        if not below:
            below = [s.new_zeros(len(s), overlap(plan.rows), plan.columns.output) for s in sums]
        rows, columns = known_rows - row.keep.start, known_columns - column.keep.start
        for number, part in enumerate(sums):
            if columns:
                part[..., :columns] += left[number]
            new = slice(known_columns, column.keep.stop)
            part[:, :rows, columns:] += below[number][:, :rows, new]
        height, width = ends[0][row] - row.keep.start, ends[1][column] - column.keep.start
        done = range(column.keep.start, ends[1][column])
        yield Piece(
            range(row.keep.start, ends[0][row]),
            done,
            tuple(part[:, :height, :width].to(head.dtype) for part, head in zip(sums, heads, strict=True)),
        )
        for kept, part in zip(below, sums, strict=True):
            kept[:, : part.shape[1] - height, done.start : done.stop] = part[:, height:, :width]
        left, known_columns = [part[..., width:] for part in sums], column.keep.stop


def _weights(axis: Axis, blend: str, device: torch.device) -> dict[Span, Tensor]:
    """`span_weights`, moved to the device together, so that the host waits once per image, not per window."""
    weights = span_weights(axis, blend)
    there = torch.cat(weights).to(device, torch.float32 if device.type == "mps" else torch.float64)
    return dict(zip(axis.spans, there.split([len(w) for w in weights]), strict=True))


def _weighted(head: Tensor, share: Tensor) -> Tensor:
    return head * share.to(torch.promote_types(head.dtype, torch.float32))


def _final(axis: Axis) -> dict[Span, int]:
    """The end of the pixels of each window that no later window changes."""
    starts = [*(span.keep.start for span in axis.spans[1:]), axis.output]
    return dict(zip(axis.spans, starts, strict=True))


def _reached(axis: Axis, span: Span) -> int:
    """The end of the pixels that earlier windows have computed, counted from this window's first pixel."""
    number = axis.spans.index(span)
    return axis.spans[number - 1].keep.stop if number else span.keep.start
