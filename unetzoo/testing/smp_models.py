"""Checks of models that subclass ours (tier 2): SMP's contract."""

from __future__ import annotations

import json
import tempfile

import torch
from torch import nn

from .case import Case
from .comparison import close
from .inputs import image, mask_of, tensors
from .kit import check, require, require_error

KIND = "model"


def _smp(case: Case) -> bool:
    return case.tier == 2


@check(KIND, applies=_smp)
def smp_parts(case: Case) -> None:
    """SMP users set separate learning rates for encoder, decoder and head."""
    net = case.build()
    parts = [net.encoder, net.decoder, net.segmentation_head, net.classification_head]
    grouped = [p for part in parts if part is not None for p in part.parameters()]
    names = {id(p): name for name, p in net.named_parameters()}
    left_out = [name for key, name in names.items() if key not in {id(p) for p in grouped}]
    require(not left_out, "every parameter in encoder, decoder or a head", f"not {', '.join(left_out[:4])}")
    require(len(grouped) == len(names), "every parameter in exactly one of them", "some in two of them")
    for name in ("out_channels", "output_stride"):
        require(hasattr(net.encoder, name), f"encoder.{name}", "none")


@check(KIND, applies=_smp)
def head_replaceable(case: Case) -> None:
    """Fine-tuning replaces `segmentation_head[0]` by a convolution for other classes."""
    net = case.build().eval()
    old = net.segmentation_head[0]
    require(isinstance(old, nn.Conv2d), "a Conv2d as segmentation_head[0]", type(old).__name__)
    net.segmentation_head[0] = nn.Conv2d(old.in_channels, 7, old.kernel_size, padding=old.padding)
    with torch.no_grad():
        found = mask_of(net(image(case, net))).shape[1]
    require(found == 7, "7 channels with a head of 7 classes", found)


@check(KIND, applies=_smp)
def freezes(case: Case) -> None:
    """Batch statistics of a frozen encoder must not change, and eval() must still reach it."""
    net = case.build()
    net.freeze_encoder()
    net.train()
    before = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    torch.stack([t.square().mean() for t in tensors(net(image(case, net)))]).sum().backward()
    moved = [name for name, value in net.encoder.state_dict().items() if not torch.equal(value, before[name])]
    require(not moved, "a frozen encoder whose state does not change", ", ".join(moved[:4]))
    trained = [name for name, p in net.encoder.named_parameters() if p.grad is not None]
    require(not trained, "no gradient in a frozen encoder", ", ".join(trained[:4]))
    net.eval()
    require(not any(part.training for part in net.modules()), "eval() to reach the frozen encoder", "parts in training")
    net.unfreeze_encoder()
    require(all(p.requires_grad for p in net.encoder.parameters()), "unfreeze_encoder() to undo it", "frozen parts")


@check(KIND, applies=lambda case: case.tier == 2 and case.takes("aux_params"))
def aux_labels(case: Case) -> None:
    """SMP's `aux_params` adds image-level labels to the output."""
    net = case.build(aux_params={"classes": 4}).eval()
    with torch.no_grad():
        output = net(image(case, net))
    require(isinstance(output, tuple) and len(output) == 2, "(masks, labels)", type(output).__name__)
    require(tuple(output[1].shape) == (2, 4), "labels of shape (2, 4)", tuple(output[1].shape))


@check(KIND, applies=_smp)
def predict_method(case: Case) -> None:
    """SMP's `net.predict(x)` switches to evaluation mode and returns no gradient."""
    net = case.build().train()
    output = net.predict(image(case, net))
    require(not net.training, "evaluation mode after predict", "training mode")
    require(not any(t.requires_grad for t in tensors(output)), "an output without gradient", "one with a gradient")


@check(KIND, applies=_smp)
def saves_and_loads(case: Case) -> None:
    """Networks are shared by `save_pretrained` and `unetzoo.from_pretrained`."""
    net = case.build(classes=3).eval()
    x = image(case, net)
    with tempfile.TemporaryDirectory() as folder:
        net.save_pretrained(folder)
        again = type(net).from_pretrained(folder).eval()
    require(again.config == json.loads(json.dumps(net.config)), f"the arguments {net.config}", again.config)
    with torch.no_grad():
        close(tensors(again(x)), tensors(net(x)), "the same output from the saved network")


@check(KIND, applies=_smp)
def wrong_arguments(case: Case) -> None:
    """Invalid arguments must be errors when the network is built, not hours later."""
    for wrong in ({"classes": 0}, {"activation": "sigmoud"}):
        if case.takes(next(iter(wrong))):
            require_error(lambda wrong=wrong: type(case.build(**wrong)).__name__, f"an error for {wrong}")


@check(KIND, applies=lambda case: case.tier == 2 and case.takes("activation"))
def output_activation(case: Case) -> None:
    """SMP's `activation` applies to the output: it must be the named function of the logits."""
    net = case.build(classes=3).eval()
    scored = case.build(classes=3, activation="softmax").eval()
    scored.load_state_dict(net.state_dict())
    x = image(case, net)
    with torch.no_grad():
        expected, found = mask_of(net(x)).softmax(1), mask_of(scored(x))
    close([found], [expected], "the softmax of the logits for activation='softmax'")
