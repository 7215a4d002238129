"""The table of layouts."""

from __future__ import annotations

from .base import Layout
from .faces import FACES
from .streets import STREETS
from .things import THINGS

LAYOUTS: dict[str, Layout] = {**FACES, **STREETS, **THINGS}
