"""Propose, train, stop: Optuna, Ray Tune, and the record of it all."""

import os

# Read by Ray when it is imported.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_AIR_NEW_OUTPUT="0",  # the new one ignores verbose=0
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",  # a failed trial has no metric
    TUNE_DISABLE_SIGINT_HANDLER="1",  # ours also combines what there is
    TUNE_PRINT_ALL_TRIAL_ERRORS="0",  # they are in the record
    TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S="3600",
)
