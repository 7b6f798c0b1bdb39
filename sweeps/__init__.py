"""The sweep: search -> choose -> show."""

import time

BEGAN = time.monotonic()  # of a command: what it imports takes seconds
