"""The functions for plugin authors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import PluginContractError
from .case import Case, Options
from .kit import Result, checks_of, expected_failures, run


def check_model(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of models that applies.

    Args:
        target: The class or function, or its registry name.
        options: Keywords to build it with; small networks make the checks fast.
        more: Other arguments of `Case`, e.g. `tier` and `expected_failures`.

    Returns:
        One result per check.

    Raises:
        PluginContractError: At least one check failed; the message lists each with what was expected, what was found
            and why it matters.

    Examples:
        >>> import unetzoo
        >>> results = check_model(unetzoo.models.BNUNet, {"encoder_channels": (4, 4, 4)})
        >>> {result.outcome for result in results}
        {'passed'}
    """
    return _check(Case("model", target, options, **more))


def check_encoder(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of encoders that applies; see `check_model`."""
    return _check(Case("encoder", target, options, **more))


def check_loss(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of losses that applies; see `check_model`. `task` is the task of the loss.

    Examples:
        >>> {result.outcome for result in check_loss("l1", task="depth")}
        {'passed'}
    """
    return _check(Case("loss", target, options, **more))


def check_metric(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of metrics that applies; see `check_model`. `task` or `batch` sets the inputs of the metric.

    Examples:
        >>> {result.outcome for result in check_metric("segmentation", {"num_classes": 3})}
        {'passed'}
    """
    return _check(Case("metric", target, options, **more))


def check_dataset(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of datasets that applies; see `check_model`.

    For a dataset that reads files, `options` may be a function of an empty folder: it writes a few small files in the
    layout of the dataset and returns the keywords.
    """
    return _check(Case("dataset", target, options, **more))


def check_recipe(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of recipes; `options` are settings such as `{"data.size": 32}`, as in `--set`."""
    return _check(Case("recipe", target, options, **more))


def check_weights(target: Any, options: Options | None = None, **more: Any) -> list[Result]:
    """Run every check of shipped weights; `target` is the folder of a saved network, or the name of the weights."""
    return _check(Case("weights", target, options, **more))


def parametrize_with_checks(cases: Iterable[Case]) -> Any:
    """Decorator for a pytest function of `case` and `check`: one test per case and applicable check.

    Expected failures become strict xfails: the test fails if the check passes.

    Args:
        cases: What to check.

    Examples:
        >>> @parametrize_with_checks([Case("loss", "dice", {"mode": "binary"})])
        ... def test_contract(case, check):
        ...     check(case)
    """
    import pytest

    from .kit import CheckFailed

    parameters = []
    for case in cases:
        reasons = expected_failures(case)
        for one in checks_of(case):
            marks = []
            if one.name in reasons:
                marks = [pytest.mark.xfail(reason=reasons[one.name], raises=CheckFailed, strict=True)]
            parameters.append(pytest.param(case, one, marks=marks, id=f"{case}-{one.name}".replace(" ", "-", 1)))
    return pytest.mark.parametrize(("case", "check"), parameters)


def _check(case: Case) -> list[Result]:
    results = list(run(case))
    bad = [result for result in results if result.failed]
    if bad:
        raise PluginContractError(
            f"{case} fails {len(bad)} of {len(results)} checks",
            found="\n" + "\n".join(f"- {result.check}: {result.message}" for result in bad),
        )
    return results
