"""Settings of every suite: property tests judge results, never time; one thread inside each TensorFlow op."""

import os

from hypothesis import settings

# Suites share processes, and the keras engine refuses a TensorFlow that some earlier test started with more.
os.environ["TF_NUM_INTRAOP_THREADS"] = "1"

settings.register_profile("no-deadline", deadline=None)
settings.load_profile("no-deadline")
