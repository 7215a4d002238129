"""What one of several processes does, by name: `python scenarios.py FOLDER`; its findings go to FOLDER/rank<N>.json."""

import hashlib
import json
import sys
from pathlib import Path

import torch
from small_runs import At, Augmented, Small, fit, make_small
from test_trainer import Squares
from torch import nn

from unetzoo import LOSSES, Trainer, precision
from unetzoo.errors import NonFiniteError
from unetzoo.training.optim import make_optimizer


class Learned(nn.Module):
    """A loss with a parameter."""

    def __init__(self):
        super().__init__()
        self.log_variance = nn.Parameter(torch.zeros(()))

    def forward(self, output, target, *, weight=None):
        return nn.functional.cross_entropy(output, target) * (-self.log_variance).exp() + self.log_variance


class Freezable(Small):
    def freeze_encoder(self):
        self.encoder.requires_grad_(False)

    def unfreeze_encoder(self):
        self.encoder.requires_grad_(True)


def plain():
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 3, padding=1))


def weights(module):
    digest = hashlib.sha256()
    for value in module.state_dict().values():
        digest.update(value.contiguous().numpy().tobytes())
    return digest.hexdigest()


def counts(folder):
    """Confusions of datasets of 1…n samples."""
    trainer = make_small()
    return {n: evaluate(trainer, n) for n in range(1, int((folder / "most").read_text()) + 1)}


def evaluate(trainer, n):
    row = trainer.evaluate(Augmented(n, 8, seed=n))
    return [trainer.metrics["mask"].confusion.tolist(), round(row["val/loss"], 5)]


def averaged(folder):
    """Two batches a step and a loss with a parameter: what one process makes of the doubled batch."""
    net, loss = plain(), Learned()
    optimizer = make_optimizer(net, "sgd", loss=loss, lr=0.5)
    world = Trainer(net, loss, progress=False).world
    trainer = Trainer(
        net, loss, optimizer=optimizer, epochs=2, batch_size=4 // world, accumulate=2, clip=0.1, progress=False
    )
    row = trainer.fit(Augmented(16))[-1]
    values = [p.detach().flatten().tolist() for p in (*net.parameters(), loss.log_variance)]
    return {"values": [x for part in values for x in part], "loss": row["train/loss"], "same": weights(net)}


def poisoned(folder):
    """NaN in the input of one process."""
    trainer = make_small(folder / "poisoned", epochs=4, checkpoint_steps=1)
    if trainer.accelerator.process_index == trainer.world - 1:
        trainer.batch_transform = At(6, lambda batch: batch["image"][0, 0, 0, 0].fill_(float("nan")) and None)
    try:
        fit(trainer)
        return "it went on"
    except NonFiniteError as error:
        states = {**trainer.net.state_dict(), **{f"ema.{k}": v for k, v in trainer.ema.net.state_dict().items()}}
        bad = [name for name, value in states.items() if not torch.isfinite(value).all()]
        return {"step": str(error.subject).partition(",")[0], "bad": bad, "steps": trainer.steps}


def interrupted(folder):
    """A run that stops in the middle and is resumed, next to one that is not interrupted."""

    class CrashError(Exception):
        pass

    def crash(batch):
        raise CrashError

    found = {}
    fit(make_small(folder / "whole", checkpoint_steps=1))
    try:
        fit(make_small(folder / "parts", checkpoint_steps=1, batch_transform=At(6, crash)))
    except CrashError:
        found["crashed"] = True
    resumed = make_small(folder / "parts", checkpoint_steps=1)
    fit(resumed, resume=True)
    return found | {"ema": weights(resumed.ema.net)}


def thawed(folder):
    """An encoder that is frozen for an epoch."""
    torch.manual_seed(0)
    net = Freezable()
    before = weights(net.encoder[0])
    seen = []

    class Watch(Squares):
        def __getitem__(self, index):
            seen.append(weights(net.encoder[0]) == before)
            return super().__getitem__(index)

    trainer = Trainer(net, LOSSES.build("ce"), epochs=2, batch_size=2, freeze_encoder=1, progress=False)
    trainer.fit(Augmented(8), Watch(2, 16))
    return {"frozen": seen[1], "thawed": not seen[-1], "same": weights(net)}


def automatic(folder):
    """Precision "auto": twice with bf16 in every process, once with bf16 in the first process only."""
    rank, found = make_small().accelerator.process_index, {}
    for name, has in (("once", True), ("again", True), ("mixed", rank == 0)):
        precision.bf16_units = lambda has=has: "amx" if has else None
        torch.manual_seed(0)
        trainer = make_small(folder / name, net=Small(width=64), precision="auto", checkpoint_steps=1)
        row = fit(trainer)[-1]
        trained = [p.tolist() for p in trainer.net.parameters()]  # without batch norm's statistics, each process's own
        found[name] = [trainer.precision, row["train/loss"], trained, weights(trainer.ema.net)]
    return found


def main():
    folder = Path(sys.argv[1])
    rank = make_small().accelerator.process_index
    wanted = (folder / "scenarios").read_text().split()
    found = {name: globals()[name](folder) for name in wanted}
    (folder / f"rank{rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
