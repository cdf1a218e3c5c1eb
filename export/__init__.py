"""How a model gets onto a phone: convert, compare with Keras, bundle, prove again.

```
bundle ─▶ export_model ─▶ describe ─▶ to_tflite ─▶ measure_parity ─▶ write_bundle ─▶ verify_bundle
 api.py    pipeline.py   model/       convert/       verify/          bundles/        verify/
```
Tables to extend with one file and one row: ``RECIPES`` (convert/recipes.py), ``RUNTIMES`` (runtimes/). Importing this
package loads neither TensorFlow nor Keras; making an artifact does, verifying a bundle does not need them.
"""

from export.api import bundle
from export.convert.recipes import CORE_RECIPES, RECIPES
from export.pipeline import export_model
from export.report.report import BundleReport
from export.runtimes import RUNTIMES
from export.verify.bundle import BundleProof, verify_bundle

__all__ = [
    "CORE_RECIPES",
    "RECIPES",
    "RUNTIMES",
    "BundleProof",
    "BundleReport",
    "bundle",
    "export_model",
    "verify_bundle",
]
