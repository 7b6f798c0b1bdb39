"""How good predictions are: pure functions of arrays.

logits: float [n, classes]; probs: float [n, classes], rows sum to 1; labels: int [n].
"""

import numpy as np


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    scaled = logits.astype(np.float64) / temperature
    e = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def losses(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each image's negative log-probability of the right class, in nats; a probability counts as at least 1e-7, as does one
    that is no number."""
    return -np.log(np.clip(np.nan_to_num(probs[np.arange(len(labels)), labels]), 1e-7, 1))


def cross_entropy(probs: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `losses`."""
    return float(losses(probs, labels).mean())


def errors(probs: np.ndarray, labels: np.ndarray) -> int:
    """The number of images whose most probable class is not the label."""
    return int((probs.argmax(axis=1) != labels).sum())


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature in [0.05, 20] with the lowest cross-entropy (Guo et al., arXiv:1706.04599).

    Networks trained with label smoothing are under-confident by design: without this, a ranking by
    cross-entropy would punish label smoothing and not errors. Cross-entropy is convex in 1 / temperature,
    so Newton's method on that scale finds the one minimum. Logits that are no numbers have none: 1.
    """
    z = logits.astype(np.float64)
    z -= z.max(axis=1, keepdims=True)
    if not np.isfinite(z).all():
        return 1.0
    right = z[np.arange(len(labels)), labels].mean()
    scale = 1.0
    for _ in range(50):
        p = np.exp(scale * z)
        p /= p.sum(axis=1, keepdims=True)
        mean = (p * z).sum(axis=1)
        slope = mean.mean() - right
        curvature = ((p * z * z).sum(axis=1) - mean**2).mean()
        # At most a factor of two a step: far from the minimum the curvature says little.
        step = np.clip(scale - slope / max(curvature, 1e-12), scale / 2, scale * 2)
        step = float(np.clip(step, 0.05, 20))
        if abs(step - scale) < 1e-6 * scale:
            break
        scale = step
    return 1 / scale


def calibrated_cross_entropy(probs: np.ndarray, labels: np.ndarray) -> float:
    """The mean of `losses` at the temperature where it is lowest."""
    logits = np.log(probs.clip(1e-12))
    return cross_entropy(softmax(logits, best_temperature(logits, labels)), labels)


def interval(errors: int, images: int) -> tuple[float, float]:
    """Wilson's 95 % interval of an error rate."""
    z = 1.96
    share, spread = errors / images, z * z / images
    middle = (share + spread / 2) / (1 + spread)
    half = z * (share * (1 - share) / images + spread / images / 4) ** 0.5 / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)
