"""Put ONNX Runtime Web and the exported network into docs/browser/vendor: `python -m docs.generate.browser`.

The runtime comes from the npm registry that npm is configured for, in a fixed version. The files are not part of the
repository; a site that is built without them says so on the page.
"""

from __future__ import annotations

import subprocess
import tarfile
import tempfile
from pathlib import Path

import unetzoo
from unetzoo.bundle import ModelBundle

from . import DOCS

PACKAGE = "onnxruntime-web@1.30.0"
FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
VENDOR = DOCS / "browser" / "vendor"
MEGABYTES = 30  # that a visitor loads


def main() -> None:
    """Fetch, unpack and export."""
    VENDOR.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True)
        (archive,) = Path(folder).glob("*.tgz")
        with tarfile.open(archive) as package:
            for name in FILES:
                content = package.extractfile(f"package/dist/{name}")
                assert content is not None
                (VENDOR / name).write_bytes(content.read())
    unetzoo.export(ModelBundle.of(unetzoo.load("nuclei")), VENDOR / "nuclei.onnx")
    size = sum(file.stat().st_size for file in VENDOR.iterdir()) / 1e6
    assert size <= MEGABYTES, f"{size:.0f} MB"
    print(f"{VENDOR}: {size:.1f} MB")


if __name__ == "__main__":
    main()
