"""What is asked of every kind: the signature, the import, and manners."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..plugins import Entry, installed
from ..probing import Probe, probe
from ..process_state import RANDOM, differences, snapshot
from ..registry import keywords
from .case import UNNAMED, Case
from .comparing import same
from .inputs import image, metric_batch, pair, tensors
from .kit import Skipped, check, require

BUILT = ("model", "encoder", "loss", "metric", "dataset")
SECONDS = 5.0  # of processor time for an import, not counting torch, NumPy, Pillow and SMP


@check(*BUILT, alone=True)
def explicit_signature(case: Case) -> None:
    """A misspelt keyword must be an error with the nearest name, and **kwargs swallow it."""
    loose = [str(p) for p in inspect.signature(case.load()).parameters.values() if p.name not in keywords(case.load())]
    require(not loose, "parameters that can each be given by name", ", ".join(loose))


@check(*BUILT, alone=True)
def json_arguments(case: Case) -> None:
    """Recipes and saved networks keep arguments as JSON; what JSON cannot hold is lost there."""
    given = {p.name: p.default for p in keywords(case.load()).values() if p.default is not p.empty}
    if not callable(case.given) and case.kind in ("model", "encoder"):
        given |= case.options
    for name, value in given.items():
        try:
            json.dumps(value)
        except TypeError:
            require(False, "defaults and options that JSON can hold", f"{name}={value!r}")


def _importable(case: Case) -> bool:
    return case.entry is not None


@check(*BUILT, "recipe", applies=_importable, alone=True)
def imports_alone(case: Case) -> None:
    """A name must work in a fresh process: in workers, on another machine, after a restart."""
    found = _probe(case)
    require(found.fault is None, "an import that succeeds in a fresh process", found.fault)


@check(*BUILT, "recipe", applies=_importable, alone=True)
def imports_quickly(case: Case) -> None:
    """Everybody who uses the name waits for its import, in every worker again."""
    found = _probe(case).seconds
    require(found <= SECONDS, f"an import within {SECONDS:g} s of CPU time, beside torch and SMP", f"{found:.1f} s")


@check(*BUILT, "recipe", applies=_importable, alone=True)
def imports_quietly(case: Case) -> None:
    """Stdout belongs to the program: one printed line breaks `unetzoo … --json | jq`."""
    found = _probe(case).printed
    require(not found, "nothing printed at import", repr(found[:200]))


@check(*BUILT, "recipe", applies=_importable, alone=True)
def import_keeps_settings(case: Case) -> None:
    """An import that sets seeds, threads, filters or dtypes changes the results of code that never heard of it."""
    found = _probe(case).changed
    require(not found, "an import that changes no setting of the process", "; ".join(found))


@check(*BUILT)
def use_is_quiet(case: Case) -> None:
    """Stdout belongs to the program: one printed line breaks `unetzoo … --json | jq`."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        use(case, case.build())
    require(not printed.getvalue(), "nothing printed to stdout", repr(printed.getvalue()[:200]))


@check(*BUILT)
def use_keeps_settings(case: Case) -> None:
    """Seeds, threads, filters and dtypes are everybody's: whoever sets them changes other people's results."""
    before = snapshot()
    thing = case.build()
    allowed = {RANDOM[2]} if case.kind in ("model", "encoder") else set()  # weights are drawn from torch's numbers
    built = snapshot()
    changed = differences({k: v for k, v in before.items() if k not in allowed}, built)
    use(case, thing)
    changed += differences(built, snapshot())
    require(not changed, "settings and random numbers of the process as they were", "; ".join(changed))


@check("model", "loss", "metric", "dataset")
def copies(case: Case) -> None:
    """Averaging weights, data workers and training on several devices all work on copies."""
    import copy
    from multiprocessing.reduction import ForkingPickler

    workers: Any = ForkingPickler  # the stubs do not know its `loads`

    thing = case.build()
    expected = use(case, thing)
    for how, again in (
        ("copy.deepcopy", lambda: copy.deepcopy(thing)),
        ("pickling", lambda: workers.loads(bytes(workers.dumps(thing)))),
    ):
        require(same(use(case, again()), expected), f"the same answer after {how}", "another answer")


@check("model", "encoder", "loss", "metric")
def deterministic(case: Case) -> None:
    """A score that changes without a cause cannot be compared with anything."""
    thing = case.build()
    first, second = use(case, thing), use(case, thing)
    require(same(first, second), "the same answer to the same question", "two answers")


@check("model", "loss", "metric")
def inputs_untouched(case: Case) -> None:
    """The next loss and the metrics read the same tensors after this one."""
    thing = case.build()
    given = inputs(case, thing)
    kept = [tensor.clone() for tensor in given]
    with torch.no_grad():
        _ = call(case, thing)(*given)
    unchanged = all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
    require(unchanged, "inputs that hold what they held before", "an input that was written into")


def use(case: Case, thing: Any) -> Any:
    """What one use of a thing gives: a list of tensors, the scores, a sample."""
    if case.kind == "dataset":
        return thing[0]
    if case.kind == "metric":
        thing.reset()
        thing.update(*metric_batch(case))
        return thing.compute()
    if isinstance(thing, torch.nn.Module):
        thing.eval()
    with torch.no_grad():
        return [tensor.clone() for tensor in tensors(call(case, thing)(*inputs(case, thing)))]


def inputs(case: Case, thing: Any) -> list[Tensor]:
    """What a model, encoder, loss or metric is called with."""
    if case.kind in ("model", "encoder"):
        return [image(case, thing)]
    return list(metric_batch(case) if case.kind == "metric" else pair(case))


def call(case: Case, thing: Any) -> Callable[..., Any]:
    """How a model, encoder, loss or metric is called."""
    return thing.update if case.kind == "metric" else thing


_PROBES: dict[Any, Probe] = {}


def look(entries: Iterable[Entry]) -> None:
    """Import entries in a child process, unless that was done; one child for all of them."""
    missing = {_key(entry): entry for entry in entries if _key(entry) not in _PROBES}
    if missing:
        found = probe(list(missing.values()), warm=True)
        _PROBES.update({_key(one.entry): one for one in found})


def _probe(case: Case) -> Probe:
    entry = case.entry
    assert entry is not None
    if case.home is not None:
        raise Skipped(
            f"{case} was made in {case.home}, so no other process can import it; put it into a module of its own, "
            "a .py file that is imported, before you share it or save networks of it"
        )
    fellows = [one for found in installed() if found.name == entry.distribution for one in found.entries]
    look([*fellows, entry])
    return _PROBES[_key(entry)]


def _key(entry: Entry) -> Any:
    """Names that no distribution gives are known by their module."""
    return entry.target.partition(":")[0] if entry.version == UNNAMED else entry
