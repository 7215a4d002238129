"""Audits of folders and datasets: findings with files, reasons and fixes.

`recognize.py` matches a folder with the layouts that datasets declare, those of plugins included. `probe.py` and
`examine.py` read each file once and keep facts. `sample_checks.py`, `mask_value_checks.py`, `set_checks.py` and
`alignment.py` turn facts into findings, whose kinds are listed in `kinds.py`.
"""

from __future__ import annotations

from .findings import Case, ClassShare, Finding
from .recognize import recognize
from .report import Report
from .run import audit

__all__ = ["Case", "ClassShare", "Finding", "Report", "audit", "recognize"]
