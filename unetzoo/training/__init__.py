"""Training: the Trainer, recipes, runs and checkpoints."""

from .logs import Log, TensorBoard
from .optim import Schedule, make_optimizer
from .recipe import Recipe
from .recipe import load as load_recipe
from .run import Result, evaluate, train
from .stages import Stage
from .trained import load_run
from .trainer import Trainer

__all__ = [
    "Log",
    "Recipe",
    "Result",
    "Schedule",
    "Stage",
    "TensorBoard",
    "Trainer",
    "evaluate",
    "load_recipe",
    "load_run",
    "make_optimizer",
    "train",
]
