"""Training: the Trainer, recipes, runs and checkpoints."""

from .recipe import Recipe
from .recipe import load as load_recipe
from .run import Result, evaluate, load_run, train
from .trainer import Trainer

__all__ = ["Recipe", "Result", "Trainer", "evaluate", "load_recipe", "load_run", "train"]
