"""Settings of every suite: property tests judge results, never time; one thread inside each TensorFlow op."""

import os
import sys

import pytest
from hypothesis import settings

# Suites share processes, and the keras engine refuses a TensorFlow that some earlier test started with more.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")


@pytest.fixture(autouse=True, scope="module")
def fresh_keras_names() -> None:
    """Keras numbers layers by what was built before in the process; a module's results must not depend on that."""
    if keras := sys.modules.get("keras"):
        keras.backend.clear_session()
