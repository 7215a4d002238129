"""Plugins that can be imported, but fail when they are built or used."""

import json
import sys

import plugin_layout
import pytest
from plugin_layout import io_of

import unetzoo
from unetzoo.errors import (
    ConfigError,
    MissingKeywordError,
    PluginBuildError,
    PluginContractError,
    UnknownKeywordError,
)
from unetzoo.registry import MODELS

laid_out = plugin_layout.laid_out

BUILDS = """
import torch
print("welcome to acme")
from unetzoo.errors import ConfigError
class Odd(Exception):
    pass
def make(how="", power=1):
    if how == "odd":
        raise Odd("no weights")
    if how == "exit":
        raise SystemExit(3)
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "type":
        return len(power)
    if how == "ours":
        raise ConfigError("wrong how", expected="another")
    return how
def needy(root, split, depth=3):
    return root
class Steps(torch.nn.Module):
    def __init__(self, in_channels=3, classes=1):
        super().__init__()
        self.rate = torch.linspace(0, 1, 3)[1].item()
        self.conv = torch.nn.Conv2d(in_channels, classes, 1)
    def forward(self, x):
        assert x.shape[-1] > 64, "too small"
        return self.conv(x)
class Dicts(Steps):
    def forward(self, x):
        return {"mask": self.conv(x)}
"""


def test_errors_of_a_factory_name_the_plugin_and_are_kept_as_the_cause(laid_out):
    laid_out("acme-builds", {"losses": {"builds": "make"}}, BUILDS)
    for how, cause, found in (("odd", "Odd", "Odd: no weights"), ("exit", "SystemExit", "SystemExit: 3"),
                              ("type", "TypeError", "TypeError: object of type 'int' has no len")):  # fmt: skip
        with pytest.raises(PluginBuildError) as caught:
            unetzoo.LOSSES.build("builds", how=how)
        for text in (
            "acme-builds 1.2 (acme_builds:make)",
            found,
            "author of 'acme-builds'",
        ):
            assert text in str(caught.value)
        assert type(caught.value.__cause__).__name__ == cause
    assert unetzoo.LOSSES.build("builds", how="well") == "well"


def test_our_errors_and_mistakes_of_the_user_are_not_wrapped(laid_out):
    laid_out("acme-builds", {"losses": {"builds": "make"}, "datasets": {"needy": "needy"}}, BUILDS)
    with pytest.raises(ConfigError) as caught:
        unetzoo.LOSSES.build("builds", how="ours")
    assert str(caught.value) == "wrong how: expected another" and caught.value.__cause__ is None
    with pytest.raises(KeyboardInterrupt):
        unetzoo.LOSSES.build("builds", how="interrupt")
    with pytest.raises(UnknownKeywordError) as caught:
        unetzoo.LOSSES.build("builds", hwo="odd")
    assert "'how'" in caught.value.hint
    with pytest.raises(MissingKeywordError) as caught:
        unetzoo.DATASETS.build("needy")
    assert all(word in str(caught.value) for word in ("needy", "root", "split"))
    with pytest.raises(MissingKeywordError) as caught:
        unetzoo.DATASETS.build("isbi2012")
    assert "root" in caught.value.hint


def test_errors_of_objects_registered_in_a_notebook_are_not_wrapped(monkeypatch):
    monkeypatch.setattr(MODELS, "_local", {})

    @MODELS.register("mine")
    def mine(classes: int = 1):
        return 1 / 0

    with pytest.raises(ZeroDivisionError):
        unetzoo.build("mine")


def test_a_network_that_reads_values_or_has_unusual_outputs_is_described(laid_out):
    laid_out("acme-shapes", {"models": {"steps": "Steps", "dicts": "Dicts", "number": "make"}}, BUILDS)
    found = unetzoo.info("steps", classes=2)
    assert found.parameters == 8 and found.output_sizes[256] == (2, 256, 256) and 64 not in found.output_sizes
    assert unetzoo.info("dicts").output_sizes == {}
    assert "not known" in io_of("info", "dicts", code=0)
    sys.modules.pop("acme_shapes")
    assert json.loads(io_of("info", "steps", "--json", code=0))["parameters"] == 4  # its output is redirected
    with pytest.raises(PluginContractError) as caught:
        unetzoo.info("number")
    assert caught.value.found == "str"
