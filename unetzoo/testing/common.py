"""Checks of every kind: signature, import and side effects."""

from __future__ import annotations

import contextlib
import inspect
import io
import json
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..plugins import IMPORT_LIMIT, Entry, installed
from ..probing import Probe, probe
from ..process_state import RANDOM, differences, snapshot
from ..registry import keywords
from .case import NOT_INSTALLED, Case
from .comparison import same
from .inputs import image, metric_batch, pair, tensors
from .kit import Skipped, check, require

BUILT = ("model", "encoder", "loss", "metric", "dataset")
SECONDS = 5.0  # CPU time of an import, not counting torch, NumPy, Pillow and SMP
WARM_SECONDS = 8.0  # CPU time in which these are imported; on a slower machine, `SECONDS` grows in proportion


@check(*BUILT, independent=True)
def explicit_signature(case: Case) -> None:
    """A misspelled keyword must be an error; **kwargs would accept it silently."""
    loose = [str(p) for p in inspect.signature(case.load()).parameters.values() if p.name not in keywords(case.load())]
    require(not loose, "only parameters that can be given by name", ", ".join(loose))


@check(*BUILT, independent=True)
def json_arguments(case: Case) -> None:
    """Recipes and saved networks store arguments as JSON."""
    given = {p.name: p.default for p in keywords(case.load()).values() if p.default is not p.empty}
    if not callable(case.given) and case.kind in ("model", "encoder"):
        given |= case.options
    for name, value in given.items():
        try:
            json.dumps(value)
        except TypeError:
            require(False, "defaults and options that JSON can represent", f"{name}={value!r}")


def _importable(case: Case) -> bool:
    return case.entry is not None


@check(*BUILT, "recipe", "weights", applies=_importable, independent=True)
def importable(case: Case) -> None:
    """A name must work in a fresh process: in data workers, on another machine, after a restart."""
    found = _probe(case)
    if found.slow:
        raise Skipped(f"{case} is slow: {found.slow}; to allow more, `unetzoo plugin check --timeout`")
    require(found.fault is None, "an import that succeeds in a fresh process", found.fault)


@check(*BUILT, "recipe", "weights", applies=_importable, independent=True)
def import_time(case: Case) -> None:
    """Every user waits for the import, and so does every data worker."""
    found = _probe(case)
    limit = SECONDS * max(1.0, found.warm_seconds / WARM_SECONDS)
    expected = f"an import within {limit:.2g} s of CPU time, not counting torch and SMP"
    require(found.seconds <= limit, expected, f"{found.seconds:.1f} s")


@check(*BUILT, "recipe", "weights", applies=_importable, independent=True)
def import_silent(case: Case) -> None:
    """Stdout belongs to the application: one printed line breaks `unetzoo … --json | jq`."""
    found = _probe(case).printed
    require(not found, "nothing printed at import", repr(found[:200]))


@check(*BUILT, "recipe", "weights", applies=_importable, independent=True)
def import_side_effects(case: Case) -> None:
    """An import that sets seeds, threads, warning filters or dtypes changes the results of unrelated code."""
    found = _probe(case).changed
    require(not found, "an import without side effects on the process", "; ".join(found))


@check(*BUILT)
def silent(case: Case) -> None:
    """Stdout belongs to the application: one printed line breaks `unetzoo … --json | jq`."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        use(case, case.build())
    require(not printed.getvalue(), "nothing printed to stdout", repr(printed.getvalue()[:200]))


@check(*BUILT)
def side_effects(case: Case) -> None:
    """Seeds, threads, warning filters and dtypes are global: setting them changes the results of unrelated code."""
    before = snapshot()
    thing = case.build()
    allowed = {RANDOM[2]} if case.kind in ("model", "encoder") else set()  # initialization draws from torch's generator
    built = snapshot()
    changed = differences({k: v for k, v in before.items() if k not in allowed}, built)
    use(case, thing)
    changed += differences(built, snapshot())
    require(not changed, "unchanged settings and random state of the process", "; ".join(changed))


@check("model", "loss", "metric", "dataset")
def copyable(case: Case) -> None:
    """Weight averaging, data workers and multi-device training work on copies."""
    import copy
    from multiprocessing.reduction import ForkingPickler

    workers: Any = ForkingPickler  # the stubs do not know its `loads`

    thing = case.build()
    expected = use(case, thing)
    for how, again in (
        ("copy.deepcopy", lambda: copy.deepcopy(thing)),
        ("pickling", lambda: workers.loads(bytes(workers.dumps(thing)))),
    ):
        require(same(use(case, again()), expected), f"the same output after {how}", "a different output")


@check("model", "encoder", "loss", "metric")
def deterministic(case: Case) -> None:
    """Scores that change from call to call cannot be compared."""
    thing = case.build()
    first, second = use(case, thing), use(case, thing)
    require(same(first, second), "the same output for the same input", "different outputs")


@check("model", "loss", "metric")
def inputs_unmodified(case: Case) -> None:
    """Other losses and the metrics read the same tensors afterwards."""
    thing = case.build()
    given = inputs(case, thing)
    kept = [tensor.clone() for tensor in given]
    with torch.no_grad():
        _ = call(case, thing)(*given)
    unchanged = all(torch.equal(one, other) for one, other in zip(given, kept, strict=True))
    require(unchanged, "unmodified inputs", "an input modified in place")


def use(case: Case, thing: Any) -> Any:
    """Use an object once and return its outputs: a list of tensors, the scores, a sample."""
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
    """Arguments for a call of a model, encoder, loss or metric."""
    if case.kind in ("model", "encoder"):
        return [image(case, thing)]
    return list(metric_batch(case) if case.kind == "metric" else pair(case))


def call(case: Case, thing: Any) -> Callable[..., Any]:
    """The callable of a model, encoder, loss or metric."""
    return thing.update if case.kind == "metric" else thing


_PROBES: dict[Any, Probe] = {}


def probe_all(entries: Iterable[Entry], timeout: float = IMPORT_LIMIT) -> None:
    """Import entries in one child process, unless that was done before."""
    missing = {_key(entry): entry for entry in entries if _key(entry) not in _PROBES}
    if missing:
        found = probe(list(missing.values()), timeout=timeout, warm=True)
        _PROBES.update({_key(one.entry): one for one in found})


def _probe(case: Case) -> Probe:
    entry = case.entry
    assert entry is not None
    if case.home is not None:
        raise Skipped(
            f"{case} is defined in {case.home}, so no other process can import it; move it into a module "
            "(an importable .py file) before you share it or save networks with it"
        )
    others = [one for found in installed() if found.name == entry.distribution for one in found.entries]
    probe_all([*others, entry])
    return _PROBES[_key(entry)]


def _key(entry: Entry) -> Any:
    """Objects that belong to no distribution are identified by their module."""
    return entry.target.partition(":")[0] if entry.version == NOT_INSTALLED else entry
