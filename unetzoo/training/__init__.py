"""Training: the Trainer, recipes, runs and checkpoints."""

from .calibration import calibration_of
from .callbacks import Callback
from .metrics import Every
from .optim import make_optimizer
from .recipe import Recipe
from .recipe import load as load_recipe
from .run import Result, evaluate, train
from .schedule import Schedule, Stage
from .settings import Settings
from .trained import load_run
from .trainer import Trainer

__all__ = [
    "Callback",
    "Every",
    "Recipe",
    "Result",
    "Schedule",
    "Settings",
    "Stage",
    "Trainer",
    "calibration_of",
    "evaluate",
    "load_recipe",
    "load_run",
    "make_optimizer",
    "train",
]
