"""A Keras model as SavedModels, each traced and written once however many recipes convert it.

```
uint8 or float32 frame → float32 → model → softmax → probabilities
```
A Keras 3 model saved through a bare ``tf.Module`` loses its weights without a word (keras#20095). Here they are what
the trace itself reads, and ``@tf.function`` methods are inlined (``inner_functions_inlined`` says why).
``keras.export.ExportArchive`` finds the same and traces every model a second time while it saves.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from export.convert.conversion import Converter, convert_here
from export.convert.scratch import scratch_folder
from export.convert.traced import write_saved_model
from export.model.ends import answers_of
from export.model.heads import ONE_LOGIT, ONE_SIGMOID
from export.model.recurrent import loops_unrolled
from export.model.serving import SIGNATURE, Described
from export.model.tracing import inner_functions_inlined


class SavedModels:
    """The SavedModels of one model; ask `saved_models` for them.

    A float recipe reads the frame as the camera gives it, an integer one is traced from float32, and where there are
    recurrent layers a calibrated one holds them unrolled: few forms.
    """

    def __init__(self, described: Described, convert: Converter, root: Path) -> None:
        self.described, self.convert = described, convert
        self._root = root
        self._written: dict[tuple[str | bool, ...], str] = {}

    def folder(self, dtypes: Mapping[str, str], *, calibrated: bool = False) -> str:
        """Returns the folder of a SavedModel, written when first asked for.

        Args:
            dtypes: Of its inputs, by name.
            calibrated: Whether it has the form of calibrated recipes, where that is another: `Described.two_forms`.
        """
        key: tuple[str | bool, ...] = (*dtypes.values(), calibrated and self.described.two_forms)
        if key not in self._written:
            folder = str(self._root / f"form-{len(self._written)}")
            _write(self.described, dtypes, folder, calibrated=calibrated)
            self._written[key] = folder
        return self._written[key]


@contextlib.contextmanager
def saved_models(described: Described, convert: Converter = convert_here) -> Iterator[SavedModels]:
    """Yields the SavedModels of a model in a temporary folder that is gone after the block.

    Args:
        described: The model.
        convert: Where conversions of them run; see ``export.convert.conversion``.
    """
    with scratch_folder("export") as root:
        yield SavedModels(described, convert, Path(root))


def _write(described: Described, dtypes: Mapping[str, str], folder: str, *, calibrated: bool) -> None:
    import tensorflow as tf

    serving = described.serving
    heads = {end.name: end.head for end in serving.outputs}
    first = None if serving.open_batch else serving.batch
    specs = [tf.TensorSpec((first, *e.shape[1:]), dtypes[e.name], name=e.name) for e in serving.inputs]

    def answer(*frame: Any) -> dict[str, Any]:
        tensors = [tf.cast(part, dtype) for part, dtype in zip(frame, described.opening.dtypes, strict=True)]
        answers = answers_of(described.model, described.opening, tensors)
        return {name: _finished(tf.cast(values, tf.float32), heads[name]) for name, values in answers.items()}

    with inner_functions_inlined(), loops_unrolled(described.model, unroll=calibrated and serving.unrolled):
        serve = tf.function(answer, input_signature=specs).get_concrete_function()
    Path(folder).mkdir()
    parted = described.roots and not calibrated
    write_saved_model(serve.variables, {SIGNATURE: serve}, folder, with_values=True, parted=parted)


def _finished(values: Any, head: str) -> Any:
    """Returns what the artifact answers for the model's own ``values``; ``serving.predict`` says the same in NumPy."""
    import tensorflow as tf

    if head == "logits":
        return tf.nn.softmax(values)
    if head in (ONE_LOGIT, ONE_SIGMOID):
        second = tf.sigmoid(values) if head == ONE_LOGIT else values
        return tf.concat([1.0 - second, second], axis=1)
    return values
