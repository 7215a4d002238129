"""What is checked, under small settings: by the tests, and by `unetzoo plugin check`."""

from unetzoo.testing import Case

THREE = {"encoder_channels": [4, 8, 8]}
SIX = {"encoder_channels": [4, 4, 4, 4, 4, 4], "mid_channels": [2] * 6, "decoder_mid_channels": [2] * 5}
FEW = {"data.size": 32, "data.train.length": 4, "data.val.length": 4}

CASES = [
    Case("model", "attention-unet", THREE),
    Case("model", "attention-unet", {**THREE, "gates": "paper"}),
    Case("model", "r2attention-unet", THREE),
    Case("model", "unetplusplus", THREE),
    Case("model", "unetplusplus", {**THREE, "deep_supervision": True}),
    Case("model", "resunet", THREE),
    Case("model", "u2net", {**SIX, "deep_supervision": True}),
    Case("model", "u2net-small", SIX),
    Case("loss", "deep-supervision", {"losses": {"bce": 1.0, "dice": 0.5}}, task="binary"),
    Case("loss", "deep-supervision", {"losses": {"ce": 1.0, "dice": {"smooth": 1.0}}, "mode": "multiclass"}),
    Case("recipe", "attention-composites", FEW),
    Case("recipe", "unetplusplus-composites", FEW),
]
