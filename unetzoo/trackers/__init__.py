"""Trackers: a run's scores, samples, recipe and results in TensorBoard, MLflow, Weights & Biases or Trackio.

A recipe names them: `[train] log = ["mlflow"]`, or a table with options: `log = [{name = "wandb", mode = "offline"}]`.
`Trainer(callbacks=[MLflow()])` takes objects. A tracker that cannot start raises an error before training; a later
error is reported once and ends the tracking, not the run. A resumed run continues the run of the tracker.
"""

from .base import Tracker, flattened
from .mlflow import MLflow
from .tensorboard import TensorBoard
from .trackio import Trackio
from .wandb import WandB

__all__ = ["MLflow", "TensorBoard", "Tracker", "Trackio", "WandB", "flattened"]
