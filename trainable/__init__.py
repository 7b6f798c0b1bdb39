"""Training one image classifier: torch only, runs without Ray."""
