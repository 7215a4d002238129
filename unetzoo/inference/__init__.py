"""From a network to predictions: images of any size, and files."""

from ..bundle import ModelBundle, Preprocess
from ..cleaning import Cleaning
from .artifact import Artifact, load_artifact
from .ensemble import Ensemble, ensemble
from .export import export
from .optimized import optimize
from .padding import predict_batch
from .planner import TilingPlan, plan_tiles
from .predictor import Predictor, predict_labels
from .quantization import Calibration
from .stream import Streamed, predict_to
from .tiling import Uncertain, predict, predict_with_uncertainty
from .tta import TTA

__all__ = [
    "TTA",
    "Artifact",
    "Calibration",
    "Cleaning",
    "Ensemble",
    "ModelBundle",
    "Predictor",
    "Preprocess",
    "Streamed",
    "TilingPlan",
    "Uncertain",
    "ensemble",
    "export",
    "load_artifact",
    "optimize",
    "plan_tiles",
    "predict",
    "predict_batch",
    "predict_labels",
    "predict_to",
    "predict_with_uncertainty",
]
