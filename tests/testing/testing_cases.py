"""Objects with one defect each, and correct ones, by module."""

import broken_alone
import broken_callbacks
import broken_datasets
import broken_losses
import broken_loud
import broken_metrics
import broken_models
import broken_others
import broken_setting
import broken_slow
import broken_weights

from unetzoo.testing import Case

MODULES = (
    broken_models,
    broken_losses,
    broken_metrics,
    broken_datasets,
    broken_callbacks,
    broken_others,
    broken_weights,
)
IMPORTS = [
    ("loss", "importable", Case("loss", broken_alone.Alone)),
    ("loss", "import-time", Case("loss", broken_slow.Slow)),
    ("loss", "import-silent", Case("loss", broken_loud.Loud)),
    ("loss", "import-side-effects", Case("loss", broken_setting.Setting)),
]
BROKEN = [*(case for module in MODULES for case in module.CASES), *IMPORTS]
