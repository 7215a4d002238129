"""Plans: from a folder of data to a recipe, in which every value has its reason."""

from .machine import Timing, measure
from .plans import Plan, make_plan, plan
from .survey import Survey, survey

__all__ = ["Plan", "Survey", "Timing", "make_plan", "measure", "plan", "survey"]
