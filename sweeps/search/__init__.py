"""Propose, train, stop: Optuna, Ray Tune, and the record of it all."""
