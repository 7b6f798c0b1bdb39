"""What tables and ensemble.json say of predictions."""

import numpy as np

from trainable import scores


def score(probs: np.ndarray, labels: np.ndarray) -> dict:
    """Errors, images, error (share) and cross-entropy loss."""
    return as_score(scores.errors(probs, labels), len(labels), scores.cross_entropy(probs, labels))


def as_score(errors: int, images: int, loss: float | None) -> dict:
    return {"errors": errors, "images": images, "error": errors / images, "loss": loss}
