"""fit() as a Ray Tune Trainable: the one file of this room that imports Ray."""

import json
import os
import time
import traceback

import numpy as np
import ray
import safetensors.numpy
import torch
from ray import tune

from trainable import saved
from trainable.config import TrialConfig
from trainable.datasets.container import Dataset
from trainable.fit import evaluate, fit

BEAT = 0.5  # seconds between two beats: a trial says how far it is and hears whether the search is over
PROBS = "probs.safetensors"


class RayTrial(tune.Trainable):
    """One trial; an actor serves one after the other. A step trains up to the next rung and evaluates on val.

    What goes wrong in a trial comes back as the result `failed`: the actor lives on, and the reason is not lost.
    """

    def setup(self, config: dict, data: Dataset, keeper, rungs: list[float], threads: int, device: str | None):
        torch.set_num_threads(threads)
        self.data, self.keeper, self.rungs, self.device = data, keeper, rungs, device
        self.reset_config(config)

    def reset_config(self, new_config: dict) -> bool:
        self.number, self.flat = new_config["number"], new_config["config"]
        self.run, self.state, self.rung = None, None, 0  # frees the last trial's memory before the next is built
        self.train_s = self.eval_s = 0.0
        return True

    def step(self) -> dict:
        try:
            return self._to_next_rung()
        except ray.exceptions.RayError:
            raise  # no keeper: nothing that this process could do
        except Exception as wrong:
            if isinstance(wrong, torch.AcceleratorError) and not isinstance(wrong, torch.OutOfMemoryError):
                raise  # CUDA is lost to this process; Tune starts another
            where = traceback.extract_tb(wrong.__traceback__)[-1]
            reason = f"{type(wrong).__name__}: {wrong} ({os.path.basename(where.filename)}:{where.lineno})"
            self.run = self.state = None
            return {"failed": reason, "train_s": self.train_s, "eval_s": self.eval_s}

    def _to_next_rung(self) -> dict:
        if self.run is None:
            self.config = TrialConfig.from_flat(self.flat)
            self.run = fit(self.config, self.data, self.device)
        interrupted = self._beat(self.state.budget if self.state else 0.0)
        if interrupted and not self.state:
            return {"interrupted": True, "budget": 0.0}
        losses, beat = [], time.monotonic()
        # Rungs so close that they fall on one step are judged there one after the other.
        while not interrupted and not self._reached(self.rungs[self.rung]):
            began = time.monotonic()
            metrics, self.state = next(self.run)
            losses.append(metrics["loss"])
            now = time.monotonic()
            self.train_s += now - began
            if now - beat > BEAT:
                beat, interrupted = now, self._beat(self.state.budget)
        return self._evaluate(losses, interrupted)

    def _reached(self, budget: float) -> bool:
        return self.state is not None and self.state.step >= self.state.steps_at(budget)

    def _beat(self, budget: float) -> bool:
        return ray.get(self.keeper.beat.remote(self.number, budget, self.train_s, self.eval_s))

    def _evaluate(self, losses: list[torch.Tensor], interrupted: bool) -> dict:
        began = time.monotonic()
        metrics, probs = evaluate(self.state, self.data.val)
        if losses:
            metrics["train_loss"] = torch.stack(losses).mean().item()
        self.eval_s += time.monotonic() - began
        files = self._hand_over(metrics, probs)
        self.rung += 1
        parameters = sum(p.numel() for p in self.state.network.parameters())
        times = {"train_s": self.train_s, "eval_s": self.eval_s}
        return {
            **metrics,
            **times,
            "parameters": parameters,
            "engine": self.state.plan.setting,
            "interrupted": interrupted,
            "files": json.dumps(files),
        }

    def _hand_over(self, metrics: dict, probs: np.ndarray) -> dict[str, str]:
        """Give the network to the keeper if it is among the best: their names and digests, written before told."""
        if not ray.get(self.keeper.wants.remote(self.number, metrics["val_loss"])):
            return {}
        files = saved.pack(self.config, self.data, self.state, metrics)
        files[PROBS] = safetensors.numpy.save({"val": probs.astype(np.float32)})
        return ray.get(self.keeper.keep.remote(self.number, metrics["val_loss"], files))
