"""Start from the weights of another network: of other classes, other channels, or only of an encoder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ..errors import CheckpointError, CheckpointMismatchError, ConfigError
from ..registry import WEIGHTS
from .states import check_finite, read_state

FILE = "model.safetensors"
MISSING = "not in the source"
SHOWN = 8
COUNTER = "num_batches_tracked"  # of batch norm; some files lack it


@dataclass
class Transfer:
    """What a network has taken from other weights.

    Args:
        taken: Names of tensors that were copied.
        adapted: Names of tensors that were changed to fit, with the change.
        new: Names of tensors that keep their initial values, with the reason.
        unused: Names of tensors of the source for which the network has no place.
    """

    taken: list[str] = field(default_factory=list)
    adapted: dict[str, str] = field(default_factory=dict)
    new: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """A table of four rows."""
        changed = {name: why for name, why in self.new.items() if why != MISSING}
        rows = {
            "taken": (len(self.taken), _parts(self.taken)),
            "adapted": (len(self.adapted), [f"{name} ({how})" for name, how in self.adapted.items()]),
            "left new": (
                len(self.new),
                _parts(name for name in self.new if name not in changed)
                + [f"{name} ({why})" for name, why in changed.items()],
            ),
            "not used": (len(self.unused), _parts(self.unused)),
        }
        return "\n".join(f"{title:<9}{count:>4}  {_some(names)}".rstrip() for title, (count, names) in rows.items())


def start_from(
    net: nn.Module,
    source: str | Path | Mapping[str, Any] | nn.Module,
    *,
    key: str | None = None,
    least: float = 0.5,
) -> Transfer:
    """Initialize a network from the weights of a similar one.

    Tensors of the same name and shape are copied. The first convolution is adapted to other channels: summed for one
    channel, otherwise repeated and scaled. Others of a different shape, such as the head for other classes, keep their
    initial values. Weights of only an encoder, such as those of timm, torchvision or SMP, initialize the encoder; if
    their names differ, they are matched in the order of definition.

    Args:
        net: The network; it is modified only if the weights fit.
        source: A run folder, a saved network, a `.safetensors` or PyTorch file, a state dict, a module, or the name of
            shipped weights.
        key: Which of several sets of weights in a checkpoint to take, e.g. "ema".
        least: Share of the encoder's tensors that must be found.

    Returns:
        What was taken, adapted and left new; `print` shows a table.

    Raises:
        CheckpointMismatchError: Fewer of the encoder's tensors are found than `least`: it is another network.
        CheckpointError: The file cannot be read, or contains NaN or infinity.

    Examples:
        >>> import unetzoo
        >>> trained = unetzoo.build("bnunet", classes=2, encoder_channels=(4, 8, 16))
        >>> net = unetzoo.build("bnunet", in_channels=1, classes=5, encoder_channels=(4, 8, 16))
        >>> found = start_from(net, trained)
        >>> found.adapted, [*found.new]
        ({'encoder.blocks.0.0.0.weight': '3 → 1 channels'}, ['segmentation_head.0.weight', 'segmentation_head.0.bias'])
    """
    state, ordered = read_state(_file(source), key, net.state_dict().keys())
    encoder = getattr(net, "encoder", None)
    names = _matched(net, state, ordered)
    part = encoder if isinstance(encoder, nn.Module) else net
    return _transfer(net, state, names, _subject(source), part, least)


def _file(source: Any) -> Any:
    """The weights in a folder; other sources are returned unchanged."""
    if source == "":
        raise ConfigError("no weights to start from", expected="a run, a saved network or a file",
                          found="an empty path", hint="leave start out")  # fmt: skip
    if isinstance(source, str) and not Path(source).exists() and source in WEIGHTS:
        source = WEIGHTS.get(source)
    if not isinstance(source, str | Path) or not Path(source).is_dir():
        return source
    folder = Path(source)
    for file in (folder / "best" / FILE, folder / FILE):
        if file.is_file():
            return file
    raise CheckpointError(
        "no weights in the folder", subject=source, expected=f"best/{FILE} or {FILE}",
        found=_some(sorted(entry.name for entry in folder.iterdir())) or "an empty folder",
        hint="give a run folder or a saved network",
    )  # fmt: skip


def _subject(source: Any) -> str:
    return str(source) if isinstance(source, str | Path) else type(source).__name__


def _matched(net: nn.Module, state: Mapping[str, Tensor], ordered: bool) -> dict[str, str]:
    """Map the network's tensor names to those of the source: the best of several ways to match them."""
    own = [name for name in net.state_dict() if not name.endswith(COUNTER)]
    ways = [{name: name for name in own if name in state}]
    for prefix in ("encoder.", "encoder.model."):
        ways.append({name: name.removeprefix(prefix) for name in own
                     if name.startswith(prefix) and name.removeprefix(prefix) in state})  # fmt: skip
    best = max(ways, key=len)
    if not best and ordered:
        return _in_order(net, state)
    return best


def _in_order(net: nn.Module, state: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the encoder's tensors to those at the start of the source, if all have the same shapes in the same order."""
    ours = {name: tensor for name, tensor in net.state_dict().items()
            if name.startswith("encoder.") and not name.endswith(COUNTER)}  # fmt: skip
    theirs = {name: tensor for name, tensor in state.items() if not name.endswith(COUNTER)}
    pairs = list(zip(ours.items(), theirs.items(), strict=False))
    fits = len(ours) <= len(theirs) and all(
        _adaptable(own, other) if place == 0 else own.shape == other.shape
        for place, ((_, own), (_, other)) in enumerate(pairs)
    )
    return {name: other for (name, _), (other, _) in pairs} if fits else {}


def _transfer(
    net: nn.Module,
    state: Mapping[str, Tensor],
    names: Mapping[str, str],
    subject: str,
    encoder: nn.Module,
    least: float,
) -> Transfer:
    own, found, tensors = net.state_dict(), Transfer(), {}
    first = next((f"{name}.weight" for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d)), "")
    for name, tensor in own.items():
        other = state.get(names.get(name, ""))
        if other is None:
            if not name.endswith(COUNTER):
                found.new[name] = MISSING
        elif other.shape == tensor.shape:
            tensors[name] = other
            found.taken.append(name)
        elif name == first and _adaptable(tensor, other):
            tensors[name] = adapt_channels(other, tensor.shape[1])
            found.adapted[name] = f"{other.shape[1]} → {tensor.shape[1]} channels"
        else:
            found.new[name] = f"{_shape(other)} in the source, {_shape(tensor)} here"
    used = set(names.values())
    found.unused = [name for name in state if name not in used and not name.endswith(COUNTER)]
    inside = {id(tensor) for tensor in (*encoder.parameters(), *encoder.buffers())}
    members = [name for name, tensor in (*net.named_parameters(), *net.named_buffers())
               if id(tensor) in inside and not name.endswith(COUNTER)]  # fmt: skip
    if sum(name in tensors for name in members) < least * len(members):
        whole = least == 1
        raise CheckpointMismatchError(
            f"weights of another {'encoder' if whole else 'network'}", subject=subject, found="\n" + str(found),
            expected="every tensor of the encoder" if whole else f"most tensors of {type(net).__name__}",
            hint="choose the encoder that they were trained with" if whole else
            "build the network that they were trained with; weights of other authors: unetzoo.from_foreign",
        )  # fmt: skip
    check_finite(tensors, subject)
    net.load_state_dict({name: tensor.to(own[name].dtype) for name, tensor in tensors.items()}, strict=False)
    return found


def adapt_channels(weight: Tensor, channels: int) -> Tensor:
    """Adapt the weight of a first convolution to other image channels, as timm does.

    Args:
        weight: Weight (out, in, h, w).
        channels: Number of image channels.

    Returns:
        Weight (out, channels, h, w): the sum for one channel, otherwise repeated and scaled, so that the output for
        images with equal channels stays the same.
    """
    if channels == 1:
        return weight.sum(1, keepdim=True)
    inputs = weight.shape[1]
    repeated = weight.repeat(1, -(-channels // inputs), 1, 1)[:, :channels]
    return repeated * (inputs / channels)


def _adaptable(own: Tensor, other: Tensor) -> bool:
    """Whether two weights differ at most in their input channels."""
    return own.ndim == other.ndim == 4 and own.shape[0] == other.shape[0] and own.shape[2:] == other.shape[2:]


def _shape(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a number"


def _parts(names: Iterable[str]) -> list[str]:
    """The parts of a network to which tensors belong, with their numbers."""
    return [f"{part} ({count})" for part, count in Counter(name.split(".")[0] for name in names).items()]


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
