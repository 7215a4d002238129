"""From a network to answers: pictures of any size, and files."""

from .artefact import Artefact, load_artefact
from .decide import Cleaning
from .export import export
from .optimized import optimize
from .planner import Fit, plan_tiles
from .predictor import Predictor
from .prepared import Prepare, TrainedNetwork
from .stream import Streamed, predict_to
from .tiling import Uncertain, predict, predict_with_uncertainty
from .tta import TTA

__all__ = [
    "TTA",
    "Artefact",
    "Cleaning",
    "Fit",
    "Predictor",
    "Prepare",
    "Streamed",
    "TrainedNetwork",
    "Uncertain",
    "export",
    "load_artefact",
    "optimize",
    "plan_tiles",
    "predict",
    "predict_to",
    "predict_with_uncertainty",
]
