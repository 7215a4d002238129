"""Auditing data: what is wrong with a folder or a dataset, said in findings with files, reasons and fixes.

`layouts.py` collects the layouts that datasets declare, plugins' too; `recognize.py` says which one a folder has.
`probe.py` and `examine.py` read each file once and keep facts. `sample_checks.py`, `mask_value_checks.py`,
`set_checks.py` and `alignment.py` turn facts into findings, whose kinds stand in `kinds.py`.
"""

from __future__ import annotations

from .findings import Case, ClassShare, Finding
from .recognize import recognize
from .report import Report
from .run import audit

__all__ = ["Case", "ClassShare", "Finding", "Report", "audit", "recognize"]
