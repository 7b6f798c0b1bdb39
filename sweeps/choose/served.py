"""The ensemble as MLflow serves it: image files in, labels out.

MLflow runs this file where it loads the model ("models from code"), so that no pickle is read.
"""

import base64
import binascii
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from sweeps.choose.model import Model
from trainable.datasets.container import Split
from trainable.datasets.images import decode


class Served(mlflow.pyfunc.PythonModel):
    """Rows of `image`, a file (PNG, JPEG, ...) in base64; any size, it is scaled as in training. Answers `label`, and the
    `probability` that the ensemble gives it."""

    def load_context(self, context):
        self.model = Model(Path(context.artifacts["ensemble"]))
        self.problem = self.model.networks[0].problem

    def predict(self, context, model_input: pd.DataFrame, params=None) -> pd.DataFrame:
        try:
            images = [decode(base64.b64decode(text, validate=True), self.problem.in_shape) for text in model_input["image"]]
        except (binascii.Error, ValueError, OSError) as wrong:
            raise mlflow.MlflowException.invalid_parameter_value(f"an image cannot be read: {wrong}") from wrong
        many = len(images)
        pixels = np.stack(images) if many else np.empty((0, *self.problem.in_shape), np.uint8)
        probs = self.model(Split(pixels, np.full(many, -1), np.arange(many)))
        best = probs.argmax(axis=1)
        return pd.DataFrame({"label": [self.problem.classes[i] for i in best], "probability": probs[np.arange(many), best]})


mlflow.models.set_model(Served())
