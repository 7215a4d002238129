"""What is checked, under small settings: by the tests, and by `unetzoo plugin check`."""

from unetzoo.testing import Case

CASES = [
    Case("model", "unetzoo-template-net", {"width": 4, "levels": 3}),
    Case("loss", "unetzoo-template-loss", task="multiclass"),
    Case("metric", "unetzoo-template-metric", task="multiclass"),
    Case("dataset", "unetzoo-template-data", {"length": 4, "size": 32}),
    Case("recipe", "unetzoo-template-demo", {"data.length": 4, "data.val.length": 4, "train.batch_size": 2}),
]
