"""Join stages that readers would see as one."""

from __future__ import annotations

from collections.abc import Iterable

from .stages import Edge, Figure, join


def simplify(figure: Figure) -> Figure:
    """Join stages that belong together, and drop those whose output is never used."""
    changed = True
    while changed:
        changed = _drop_unread(figure) or _join_inner(figure) or _join_arrivals(figure)
    return figure


def _drop_unread(figure: Figure) -> bool:
    for stage in list(figure.stages.values()):
        if not stage.outputs and not figure.out_of(stage.number) and len(figure.stages) > 1:
            del figure.stages[stage.number]
            figure.edges = [edge for edge in figure.edges if edge.target != stage.number]
            return True
    return False


def _join_arrivals(figure: Figure) -> bool:
    """Join a stage that only brings a map to the level of its single successor."""
    for number in figure.stages:
        before, after = figure.into(number), _successors(figure, number)
        if len(before) != 1 or before[0].kind == "skip" or len(after) != 1 or figure.stages[number].outputs:
            continue
        if figure.stages[number].level == figure.stages[after[0]].level:
            join(figure, number, after[0])
            return True
    return False


def _join_inner(figure: Figure) -> bool:
    """Join a step between two merges (a gate, an attention unit) with its single successor."""
    for number in sorted(figure.stages, reverse=True):
        after = _successors(figure, number)
        if len(after) != 1 or number == 0 or figure.stages[number].outputs:
            continue
        level = figure.stages[number].level
        if level != figure.stages[after[0]].level or all(edge.kind != "skip" for edge in figure.into(number)):
            continue
        edges = figure.into(number) + figure.into(after[0])
        moves = {edge.source for edge in edges if edge.kind != "skip"}
        if len(moves | _arrivals(figure, edges)) <= 1:
            join(figure, number, after[0])
            return True
    return False


def _arrivals(figure: Figure, edges: Iterable[Edge]) -> set[int]:
    """Return the coarser stages from which the sources of skips were upsampled."""
    sources = {edge.source for edge in edges if edge.kind == "skip"}
    return {e.source for s in sources for e in figure.into(s) if e.kind == "up" and len(figure.into(s)) == 1}


def _successors(figure: Figure, number: int) -> list[int]:
    return sorted({edge.target for edge in figure.out_of(number)})
