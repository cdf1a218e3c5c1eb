"""What is trained. A new model is a builder and a row in `table.MODELS`; TensorFlow is imported when one is built."""

from fl_mobile.models.build import build_model
from fl_mobile.models.table import MODELS, ModelRow

__all__ = ["MODELS", "ModelRow", "build_model"]
