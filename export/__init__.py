"""How a model gets onto a phone: convert, compare with Keras, bundle, prove again.

```
export_model ─▶ describe ─▶ to_tflite ─▶ measure_parity ─▶ write_bundle ─▶ verify_bundle
 pipeline.py   serving.py   convert.py     verify.py        bundle.py       prove.py
```
Tables to extend with one file and one row: ``RECIPES`` (recipes.py) and ``RUNTIMES`` (runtimes/). Importing this
package loads neither TensorFlow nor Keras; making an artifact does, verifying a bundle does not need them.
"""

from export.pipeline import export_model
from export.prove import BundleProof, verify_bundle
from export.recipes import CORE_RECIPES, RECIPES
from export.report import BundleReport
from export.runtimes import RUNTIMES

__all__ = ["CORE_RECIPES", "RECIPES", "RUNTIMES", "BundleProof", "BundleReport", "export_model", "verify_bundle"]
