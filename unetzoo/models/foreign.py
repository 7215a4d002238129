"""Load third-party weights.

The names of a checkpoint's tensors identify its network (`WeightLayout`). The layout maps each tensor to one of our
networks, and provides the arguments with which it computes the same output. Ambiguous matches are rejected.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..errors import (
    CheckpointMismatchError,
    ConfigError,
    MissingKeywordError,
    PluginError,
    UnknownNameError,
    did_you_mean,
)
from ..registry import MODELS, keywords
from .layouts import State, WeightLayout, rename
from .shape_matching import names_by_shape
from .states import check_tensors, read_state

# Arguments that change the computation but not the shapes of the tensors.
UNSEEN = ("align", "concat", "gates", "hidden_act", "order", "up", "variant")


class Candidate(NamedTuple):
    """A layout supported by a registered model."""

    name: str
    model: str
    layout: WeightLayout


def from_foreign(
    source: str | Path | Mapping[str, Any] | nn.Module,
    layout: str | Mapping[str, str] | None = None,
    into: Any = None,
    *,
    key: str | None = None,
    **overrides: Any,
) -> Any:
    """Build the network that is equivalent to a third-party one, and load its weights.

    Wrappers around the weights are removed: the prefixes of `DataParallel` and `torch.compile`, the dicts of Lightning,
    nnU-Net, timm and other trainers, and milesial's `mask_values`. Biases before a batch norm for which the network has
    no parameter are folded into the norm's running mean, which is exact in evaluation mode; biases missing from the
    checkpoint become 0.

    Args:
        source: A safetensors file, a PyTorch file (read with `weights_only=True`: no code in it is run), a state dict,
            or a module.
        layout: Name of the layout, e.g. "milesial"; by default, it is recognized by the tensors' names. With `into`,
            it may also be a mapping from the checkpoint's module names to the network's; a name applies to all its
            submodules.
        into: Any `nn.Module` to load the weights into, instead of building one. It is modified only if everything
            matches, and keeps its mode.
        key: Which of several sets of weights in a checkpoint to load, e.g. "ema"; use dots for nested dicts.
        overrides: Arguments of the network to build, e.g. `activation=None` for logits if the original returns
            probabilities, or arguments not determined by the weights (`t` of R2U-Net).

    Returns:
        The network: a new one in evaluation mode, or `into`.

    Raises:
        UnknownNameError: Unknown layout.
        MissingKeywordError: An argument is missing that the weights do not determine.
        ConfigError: Arguments are mutually exclusive, or the source is not a checkpoint.
        CheckpointUnsafeError: Loading the file would execute code.
        CheckpointMismatchError: The checkpoint has several sets of weights, its names are unknown or ambiguous, its
            tensors do not match `into`, or `into` would compute something else with them.
        CheckpointError: The file cannot be read, contains no weights, or contains NaN or infinity.

    Warns:
        UserWarning: The layout is unknown and tensors were matched by shape, or some tensors were not used.

    Examples:
        >>> import unetzoo
        >>> one, two = (unetzoo.build("bnunet", encoder_channels=(4, 8, 16)) for _ in range(2))
        >>> state = {f"module.{name}": tensor for name, tensor in one.state_dict().items()}
        >>> from_foreign({"state_dict": state, "epoch": 3}, into=two) is two
        True
        >>> torch.equal(one.segmentation_head[0].weight, two.segmentation_head[0].weight)
        True
    """
    state, ordered = read_state(source, key, () if into is None else _loaded_names(into))
    if isinstance(layout, str):
        check_layout_name(layout)
    if into is not None:
        if overrides:
            raise ConfigError(
                "into= takes a network that is already built", found=", ".join(overrides), hint="build it with these"
            )
        fill(into, state, module_names(into, state, layout, ordered))
        return into
    if isinstance(layout, Mapping):
        raise ConfigError("a table of names needs a network", expected="into=net", found="only layout=")
    found = recognize(state, layout)
    try:
        config = found.layout.configure(state)
        names = found.layout.names(state)
    except (KeyError, IndexError) as error:
        raise CheckpointMismatchError(
            f"not the layout {found.name!r}", expected=found.layout.title, found=f"no tensor {error}",
            hint="name another layout=",
        ) from error  # fmt: skip
    for argument, where in found.layout.asks.items():
        if argument not in overrides:
            raise MissingKeywordError(
                f"the weights of {found.layout.title} do not determine {argument}",
                subject=argument,
                hint=f"from_foreign(…, {argument}=…): {where}",
            )
    net = MODELS.build(found.model, **(config | overrides))
    fill(net, state, names)
    return net.eval()


def layouts_of(model: Any) -> Mapping[str, WeightLayout]:
    """Return the layouts supported by a model (a class or a network), by name."""
    return getattr(model, "weight_layouts", {})


def candidates(*, builtin: bool) -> Iterator[Candidate]:
    """Iterate over the layouts of all built-in or all plugin models; plugins that cannot be loaded are skipped."""
    for model in MODELS.names():
        if MODELS.entry(model).builtin == builtin:
            try:
                known = layouts_of(MODELS.get(model))
            except PluginError:
                continue
            yield from (Candidate(name, model, layout) for name, layout in known.items())


def every_layout() -> dict[str, Candidate]:
    """Return all layouts by name, built-in ones first."""
    found: dict[str, Candidate] = {}
    for builtin in (True, False):
        for candidate in candidates(builtin=builtin):
            found.setdefault(candidate.name, candidate)
    return found


def check_layout_name(name: str) -> None:
    """Check that a layout exists.

    Raises:
        UnknownNameError: Unknown layout; the error suggests the nearest name.
    """
    if name not in (known := every_layout()):
        raise UnknownNameError(f"unknown layout {name!r}", hint=did_you_mean(name, known, "layout"))


def recognize(state: State, layout: str | None = None) -> Candidate:
    """Return the layout of a checkpoint, given by name or recognized by its tensors.

    Raises:
        CheckpointMismatchError: The layout is unknown or ambiguous.
    """
    if layout is not None:
        return every_layout()[layout]
    for builtin in (True, False):
        fitting = [candidate for candidate in candidates(builtin=builtin) if candidate.layout.fits(state)]
        if len({candidate.name for candidate in fitting}) > 1:
            raise CheckpointMismatchError(
                "the weights match several networks with different outputs",
                expected=" or ".join(f"layout={c.name!r} ({c.layout.title})" for c in fitting),
                hint="give the layout= of the network that they were trained with",
            )
        if fitting:
            return fitting[0]
    raise CheckpointMismatchError(
        "unknown checkpoint layout",
        expected=f"one of {', '.join(every_layout())}",
        found=", ".join(list(state)[:5]) + (", …" if len(state) > 5 else ""),
        hint="name its layout=, or build the network and use from_foreign(source, into=net)",
    )


def module_names(
    net: nn.Module, state: State, layout: str | Mapping[str, str] | None, ordered: bool
) -> Mapping[str, str]:
    """Map the checkpoint's module names to those of a given network.

    Raises:
        CheckpointMismatchError: The checkpoint belongs to a different network, or the mapping is ambiguous.
    """
    if isinstance(layout, Mapping):
        return layout
    if layout is None and _loaded_names(net) <= state.keys():
        return {}
    known = layouts_of(net)
    if layout is not None and layout not in known:
        raise CheckpointMismatchError(
            f"{type(net).__name__} does not read the layout {layout!r}",
            expected=", ".join(known) or "no layout",
            hint=f"build {every_layout()[layout].model!r}, or leave into= out",
        )
    fitting = [known[layout]] if layout else [candidate for candidate in known.values() if candidate.fits(state)]
    if not fitting:
        warnings.warn(
            "Parameter names match no known layout; tensors are matched by shape. Compare an output.", stacklevel=3
        )
        return names_by_shape(net, state, ordered)
    differences = [_differences(net, candidate, state) for candidate in fitting]
    for candidate, differing in zip(fitting, differences, strict=True):
        if not differing:
            return candidate.names(state)
    same_names = (name for name, candidate in known.items() if candidate.names is fitting[0].names)
    agreeing = next((name for name in same_names if not _differences(net, known[name], state)), None)
    raise CheckpointMismatchError(
        "the network computes something else with these weights",
        expected=" or ".join(
            f"{', '.join(f'{key}={wanted!r}' for key, (wanted, _) in differing.items())} ({candidate.title})"
            for candidate, differing in zip(fitting, differences, strict=True)
        ),
        found=", ".join(f"{key}={value!r}" for key, (_, value) in differences[0].items()),
        hint="build it with these arguments, or leave into= out"
        + (f"; layout={agreeing!r} if they were trained with its arguments" if agreeing else ""),
    )


def _loaded_names(net: nn.Module) -> set[str]:
    """Return the names of the tensors that a checkpoint must provide."""
    return {name for name in net.state_dict() if not name.endswith("num_batches_tracked")}


def _differences(net: Any, layout: WeightLayout, state: State) -> dict[str, tuple[Any, Any]]:
    """Return arguments that make a network's output differ from the layout's: (expected, actual)."""
    config = getattr(net, "config", None)
    if config is None:
        return {}  # names and shapes decide
    wanted = layout.configure(state)
    defaults = {key: parameter.default for key, parameter in keywords(type(net)).items() if key != "align"}
    wanted = {key: value for key, value in (defaults | wanted).items() if key in UNSEEN and key in config}
    return {key: (value, config[key]) for key, value in wanted.items() if _plain(value) != _plain(config[key])}


def _plain(value: Any) -> Any:
    """Replace an activation without options with its name."""
    return value["type"] if isinstance(value, Mapping) and set(value) == {"type"} else value


# ---------------------------------------------------------------------------------------------- tensor by tensor


def fill(net: nn.Module, state: State, names: Mapping[str, str]) -> None:
    """Load the tensors of a checkpoint into a network; it is modified only if everything matches.

    Raises:
        CheckpointMismatchError: Tensors are missing, unexpected or incompatible.
        CheckpointCorruptError: A tensor contains NaN or infinity.
    """
    own = net.state_dict()
    found: dict[str, Tensor] = {}
    biases: dict[str, Tensor] = {}
    left = []
    for key, tensor in state.items():
        module, _, role = key.rpartition(".")
        module = rename(module, names)
        name = f"{module}.{role}" if module else role
        if name in own:
            found[name] = tensor
        elif role == "bias" and f"{module}.weight" in own:
            biases[module] = tensor
        elif role != "num_batches_tracked":
            left.append(key)
    missing = [name for name in own if name not in found and name.rpartition(".")[2] not in ("num_batches_tracked",)]
    missing = [name for name in missing if not (name.endswith("bias") and f"{name[:-4]}weight" in found)]
    if missing or (left and names):
        raise CheckpointMismatchError(
            "weights of another network",
            subject=type(net).__name__,
            found="\n" + "\n".join([*_listed("the checkpoint lacks", missing), *_listed("the network lacks", left)]),
            hint="build the network with the arguments that the checkpoint needs, or leave into= out",
        )
    check_tensors(own, found, type(net).__name__)
    if left:
        warnings.warn(f"the network has no place for {', '.join(left)}", stacklevel=3)
    found |= {name: torch.zeros_like(own[name]) for name in own if name.endswith(".bias") and name not in found}
    _fold(net, found, biases)
    net.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in found.items()}, strict=False)


def _fold(net: nn.Module, found: dict[str, Tensor], biases: Mapping[str, Tensor]) -> None:
    """Fold biases for which the network has no parameter into the running means of the following norms."""
    leaves = [(name, layer) for name, layer in net.named_modules() if not any(layer.children())]
    behind = dict(zip((name for name, _ in leaves), leaves[1:], strict=False))
    for layer, bias in biases.items():
        name, norm = behind.get(layer, ("", None))
        if not isinstance(norm, nn.BatchNorm2d):
            raise CheckpointMismatchError(
                "a bias for which the network has no place", subject=layer, expected="a batch norm right behind it",
                found=type(norm).__name__, hint="build the network with conv_bias=True",
            )  # fmt: skip
        check_tensors({f"{layer}.bias": norm.bias}, {f"{layer}.bias": bias}, type(net).__name__)
        found[f"{name}.running_mean"] = found[f"{name}.running_mean"] - bias


def _listed(what: str, names: list[str]) -> list[str]:
    return [f"  {what} {name}" for name in names[:10]] + [f"  … and {len(names) - 10} more"] * (len(names) > 10)
