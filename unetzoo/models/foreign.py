"""Weights that other code trained, in our networks.

The tensors of a U-Net are the same whatever its author called them. So names decide only *whose* network it is
(`LAYOUTS`); the tensors themselves are matched layer by layer: layers of equal shape, in the order in which both
networks define them (every layout defines its encoder before its decoder, and a level's up-sampling before its unit).
"""

from __future__ import annotations

import re
import warnings
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import (
    CheckpointCorruptError,
    CheckpointError,
    CheckpointMismatchError,
    CheckpointUnsafeError,
    UnknownNameError,
    did_you_mean,
)
from ..registry import MODELS, keywords
from .layouts import LAYOUTS, Layout, State, recognize

WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "generator")
PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.", "unet.")
# Arguments of our networks that decide what is computed, and of which the tensors' shapes say nothing.
UNSEEN = ("act", "up", "order", "concat", "variant")


@dataclass(frozen=True)
class Loaded:
    """What `load_weights` did.

    Args:
        layout: Whose names the checkpoint bears: a key of `LAYOUTS`, "unetzoo" for our own, "unknown" otherwise.
        tensors: Number of tensors that were copied.
        folded: Convolutions whose bias went into the running mean of the batch norm behind them.
        left: What the checkpoint holds beyond the network.
    """

    layout: str
    tensors: int
    folded: tuple[str, ...] = ()
    left: tuple[str, ...] = field(default=(), repr=False)


def load_weights(net: nn.Module, source: str | Path | Mapping[str, Any]) -> Loaded:
    """Fill a network with weights in its own naming or in another author's.

    Wrappings are taken off: `DataParallel` and compile prefixes, Lightning's and other trainers' process_state,
    milesial's `mask_values`. Biases before a batch norm, where the network has none, are folded into the norm's running
    mean, which is exact in evaluation mode; missing ones become 0.

    Args:
        net: The network; changed in place, and only when everything fits.
        source: A `.safetensors` file, a PyTorch file (read with `weights_only=True`: no code in it is run), or a state
            dict.

    Returns:
        What was matched how.

    Raises:
        CheckpointUnsafeError: A file that would run code.
        CheckpointError: No readable file.
        CheckpointMismatchError: Tensors of another network, with a table of what matches and what does not; or of a
            network that computes something else with the same tensors.

    Warns:
        UserWarning: The names are nobody's that we know, so shape and order alone decided.

    Examples:
        >>> import unetzoo
        >>> one, two = (unetzoo.build("bnunet", encoder_channels=(4, 8, 16)) for _ in range(2))
        >>> state = {f"module.{name}": tensor for name, tensor in one.state_dict().items()}
        >>> load_weights(two, {"state_dict": state, "epoch": 3}).layout
        'unetzoo'
    """
    state, left = read_state(source)
    own = net.state_dict()
    if {k for k in own if not k.endswith("num_batches_tracked")} <= set(state):
        _check_shapes(own, state)
        left += tuple(sorted(set(state) - set(own)))
        net.load_state_dict({k: state[k] for k in own if k in state}, strict=False)
        return Loaded("unetzoo", len(own), left=left)
    layout = recognize(state)
    if layout is None:
        warnings.warn("unknown names: weights are matched by shape and order alone; compare an answer", stacklevel=2)
    else:
        _check_computation(net, LAYOUTS[layout], state)
    found, folded = _translated(net, state)
    net.load_state_dict(found, strict=False)
    return Loaded(layout or "unknown", len(found), folded, left)


def from_foreign(source: str | Path | Mapping[str, Any], layout: str | None = None, **overrides: Any) -> Any:
    """The network of ours that computes what another author's checkpoint did, with its weights, in evaluation mode.

    Args:
        source: As for `load_weights`.
        layout: A key of `LAYOUTS`; recognized by the tensors' names otherwise.
        overrides: Arguments of our network to change, e.g. `activation=None` for logits where the original answers
            probabilities.

    Raises:
        UnknownNameError: A layout that we do not know.
        CheckpointError: The file is unreadable, or nobody's that we know.

    Examples:
        >>> import unetzoo
        >>> weights = {"conv_down1.0.weight": torch.zeros(8, 3, 3, 3)}
        >>> unetzoo.from_foreign(weights)
        Traceback (most recent call last):
        ...
        unetzoo.errors.CheckpointMismatchError: whose network is this?: expected one of milesial, leejunhyun-unet, \
leejunhyun-r2unet, mateuszbuda, cityscapes-unet, cityscapes-r2unet, cityscapes-ddunet, helen, \
found conv_down1.0.weight. Fix: name its layout=, or build the network and use load_weights(net, source)
    """
    state, _ = read_state(source)
    if layout is not None and layout not in LAYOUTS:
        raise UnknownNameError(f"unknown layout {layout!r}", hint=did_you_mean(layout, LAYOUTS, "layout"))
    layout = layout or recognize(state)
    if layout is None:
        raise CheckpointMismatchError(
            "whose network is this?",
            expected=f"one of {', '.join(LAYOUTS)}",
            found=", ".join(list(state)[:5]) + (", …" if len(state) > 5 else ""),
            hint="name its layout=, or build the network and use load_weights(net, source)",
        )
    known = LAYOUTS[layout]
    try:
        config = known.configure(state)
    except (KeyError, IndexError, ValueError) as error:
        raise CheckpointMismatchError(
            f"not the layout {layout!r}", expected=known.title, found=f"no tensor {error}", hint="name another layout="
        ) from error
    net = MODELS.build(known.model, **(config | overrides))
    found, _ = _translated(net, state)
    net.load_state_dict(found, strict=False)
    return net.eval()


def read_state(source: str | Path | Mapping[str, Any]) -> tuple[State, tuple[str, ...]]:
    """The tensors of a checkpoint under the network's own names, and the names of what else it held.

    Raises:
        CheckpointUnsafeError: A file that would run code.
        CheckpointError: No readable file, or no tensors in it.
    """
    held = dict(source) if isinstance(source, Mapping) else _read_file(Path(source))
    left: list[str] = []
    while inner := next((k for k in WRAPPERS if isinstance(held.get(k), Mapping)), None):
        left += [key for key in held if key != inner]
        held = dict(held[inner])
    left += [key for key, value in held.items() if not isinstance(value, Tensor)]
    state = {str(key): value for key, value in held.items() if isinstance(value, Tensor)}
    while prefix := next((p for p in PREFIXES if 2 * sum(k.startswith(p) for k in state) > len(state)), None):
        left += [key for key in state if not key.startswith(prefix)]  # a trainer's own, such as a loss's weights
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    if not state:
        subject = source if isinstance(source, str | Path) else "state dict"
        raise CheckpointError(
            "no weights", subject=subject, expected="named tensors", found=", ".join(left) or "nothing"
        )
    return state, tuple(left)


def _read_file(path: Path) -> dict[str, Any]:
    from pickle import UnpicklingError

    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the file's age, which says nothing of its tensors
            held = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]+)", str(error))
        if not named and not path.read_bytes()[:1] == b"\x80":  # which begins every pickle
            raise _unreadable(path, error) from error
        raise CheckpointUnsafeError(
            "a file that would run code",
            subject=path,
            expected="tensors, numbers and text alone",
            found=named[1] if named else "a bare pickle",
            hint="ask its author for the state_dict, or for safetensors",
        ) from error
    except (OSError, SafetensorError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(held, Mapping):
        raise CheckpointError("no state dict", subject=path, expected="a table of tensors", found=type(held).__name__)
    return dict(held)


def _unreadable(path: Path, error: Exception) -> CheckpointError:
    kind = CheckpointError if isinstance(error, FileNotFoundError) else CheckpointCorruptError
    return kind("cannot read the weights", subject=path, found=str(error).partition("\n")[0] or type(error).__name__)


# ---------------------------------------------------------------------------------------------- layer by layer

Slot = tuple[str, tuple[int, ...]]  # what layers must share to be exchanged: kind and shape of the weight


def _layers(state: Mapping[str, Tensor]) -> dict[Slot, list[str]]:
    """Layers by slot, each slot's in order of definition."""
    norms = {key.rpartition(".")[0] for key in state if key.endswith(".running_mean")}
    slots: dict[Slot, list[str]] = defaultdict(list)
    for key, tensor in state.items():
        layer, _, role = key.rpartition(".")
        if role == "weight":
            slots["norm" if layer in norms else "layer", tuple(tensor.shape)].append(layer)
    return slots


def _translated(net: nn.Module, state: State) -> tuple[State, tuple[str, ...]]:
    """The checkpoint's tensors under the network's names, and the convolutions whose biases were folded.

    Raises:
        CheckpointMismatchError: With a table of the slots.
    """
    own = net.state_dict()
    ours, theirs = _layers(own), _layers(state)
    if any(len(ours.get(slot, ())) != len(theirs.get(slot, ())) for slot in {*ours, *theirs}):
        raise CheckpointMismatchError(
            "weights of another network",
            subject=type(net).__name__,
            expected="as many layers of each shape",
            found="\n" + "\n".join(_table(ours, theirs)),
            hint="build the network with the arguments that the checkpoint needs, or try unetzoo.from_foreign",
        )
    found: State = {}
    biases: dict[str, Tensor] = {}
    for slot, layers in ours.items():
        for layer, other in zip(layers, theirs[slot], strict=True):
            for role in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                name, value = f"{layer}.{role}", state.get(f"{other}.{role}")
                if name in own and value is not None:
                    found[name] = value.to(own[name].dtype)
                elif name in own and role == "bias":
                    found[name] = torch.zeros_like(own[name])
                elif value is not None and role == "bias":
                    biases[layer] = value
    _fold(net, found, biases)
    return found, tuple(biases)


def _fold(net: nn.Module, found: State, biases: Mapping[str, Tensor]) -> None:
    """Move biases, for which the network has no place, into the running means of the norms behind them."""
    if not biases:
        return
    leaves = [(name, layer) for name, layer in net.named_modules() if not any(layer.children())]
    behind = dict(zip((name for name, _ in leaves), leaves[1:], strict=False))
    for layer, bias in biases.items():
        name, norm = behind.get(layer, ("", None))
        if not isinstance(norm, nn.BatchNorm2d):
            raise CheckpointMismatchError(
                "a bias for which the network has no place", subject=layer, expected="a batch norm right behind it",
                found=type(norm).__name__, hint="build the network with conv_bias=True",
            )  # fmt: skip
        found[f"{name}.running_mean"] = found[f"{name}.running_mean"] - bias


def _table(ours: Mapping[Slot, list[str]], theirs: Mapping[Slot, list[str]]) -> Iterable[str]:
    """A line a shape on which the two disagree, after one that counts where they agree."""
    slots = sorted({*ours, *theirs}, key=lambda slot: (len(slot[1]), slot))
    agree = [slot for slot in slots if len(ours.get(slot, ())) == len(theirs.get(slot, ()))]
    yield f"  {sum(len(ours[slot]) for slot in agree)} layers match"
    for slot in slots:
        mine, other = ours.get(slot, []), theirs.get(slot, [])
        if len(mine) != len(other):
            shape = "×".join(map(str, slot[1]))
            names = ", ".join((mine or other)[:3])
            yield f"  {slot[0]} {shape}: network {len(mine)}, checkpoint {len(other)} ({names})"


def _check_shapes(own: Mapping[str, Tensor], state: State) -> None:
    wrong = [f"{k}: network {tuple(own[k].shape)}, checkpoint {tuple(state[k].shape)}"
             for k in own if k in state and own[k].shape != state[k].shape]  # fmt: skip
    if wrong:
        raise CheckpointMismatchError(
            "weights of another size",
            found="\n  " + "\n  ".join(wrong[:20]),
            hint="build the network as it was trained",
        )


def _check_computation(net: nn.Module, layout: Layout, state: State) -> None:
    """Refuse a network that would compute something else with the same tensors."""
    model = MODELS.get(layout.model)
    config = getattr(net, "config", None)
    if not isinstance(net, model) or config is None:
        return  # the slots decide
    wanted = {key: parameter.default for key, parameter in keywords(model).items()} | layout.configure(state)
    differ = {key: (wanted[key], config[key]) for key in UNSEEN if key in config and config[key] != wanted[key]}
    if differ:
        raise CheckpointMismatchError(
            f"the network of {layout.title} computes something else",
            expected=", ".join(f"{key}={want!r}" for key, (want, _) in differ.items()),
            found=", ".join(f"{key}={is_!r}" for key, (_, is_) in differ.items()),
            hint="build it with these arguments, or use unetzoo.from_foreign",
        )
