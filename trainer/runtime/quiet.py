"""Imports TensorFlow without messages and what Keras can do without. Import it first.

To see everything, set TF_CPP_MIN_LOG_LEVEL=0.
"""

import logging
import os

from pipeline.common.quiet import keep_back_stderr, optional_hidden

if os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3") != "0":
    with keep_back_stderr(), optional_hidden():
        import tensorflow  # noqa: F401
    # It warns of the graphs of several models as if they were one's.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
