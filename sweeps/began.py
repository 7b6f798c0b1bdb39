"""The time at which a command began: imported before anything that takes seconds to import."""

import time

BEGAN = time.monotonic()
