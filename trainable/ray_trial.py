"""fit() as a Ray Tune Trainable: the one file of this room that imports Ray."""

import json
import os
import time
import traceback
from collections.abc import Mapping

import numpy as np
import ray
import safetensors.numpy
import torch
from ray import tune

from trainable import checkpoint, saved, scores
from trainable.augment import can_view, view
from trainable.config import ONLY_FINALISTS, TrialConfig
from trainable.datasets.container import Dataset, of_fold, with_unlabelled
from trainable.errors import BadInput
from trainable.fit import evaluate, fit, mean_loss, predict
from trainable.record_file import PROBS

BEAT = 0.5  # seconds between two beats: a trial says how far it is and hears whether the search is over
TRACE = 6  # entries of a traceback that are kept: its end


def in_view(split: str, number: int) -> str:
    """The name of what is said of a split in this view; 0 is the images as they are."""
    return f"{split}.{number}" if number else split


class Preempted(Exception):
    """A trial has handed over its state and left its place."""


class RayTrial(tune.Trainable):
    """One trial; an actor serves one after the other. A step trains up to the next rung and evaluates on val.

    A trial that goes on after a rung hands over its state while it trains; one that was begun before, by whatever process,
    goes on from the last. One whose machine is to be taken away, or whose place another sweep gets, does so at once and raises
    Preempted: it goes on later, in another process. What goes wrong in a trial comes back as the result `failed` or
    `out_of_memory`: the actor lives on, and the reason is not lost.
    """

    def setup(
        self,
        config: dict,
        data: Dataset,
        keeper,
        rungs: list[float],  # shares of a trial's epochs
        threads: int,
        device: str | None,
        views: int = 1,
        teachers: Mapping[int, np.ndarray] | None = None,
    ):
        torch.set_num_threads(threads)
        self.data, self.keeper, self.shares, self.device = data, keeper, rungs, device
        self.views, self.teachers = views, teachers or {}
        self.process = ray.get_runtime_context().get_node_id(), os.getpid()
        self.reset_config(config)

    def reset_config(self, new_config: dict) -> bool:
        self.number, self.flat = new_config["number"], new_config["config"]
        self.run, self.state, self.rung = None, None, 0  # frees the last trial's memory before the next is built
        self.train_s = self.eval_s = 0.0
        self.losses: list[torch.Tensor] = []  # of the steps since the last rung
        self.handed_over = None
        return True

    def step(self) -> dict:
        try:
            result = self._to_next_rung()
        except (ray.exceptions.RayError, Preempted):
            raise  # no keeper, or no machine: nothing that this process could do
        except (Exception, SystemExit) as wrong:  # an architecture that calls exit fails its trial alone
            if isinstance(wrong, torch.AcceleratorError) and not _out_of_memory(wrong):
                raise  # CUDA is lost to this process; Tune starts another
            where = traceback.extract_tb(wrong.__traceback__)[-1]
            reason = f"{type(wrong).__name__}: {wrong} ({os.path.basename(where.filename)}:{where.lineno})"
            kind = "out_of_memory" if _out_of_memory(wrong) else "failed"
            trace = "".join(traceback.format_exception(wrong)[-TRACE:]).rstrip()
            result = {kind: reason, "trace": trace, "train_s": self.train_s, "eval_s": self.eval_s}
            self.run = self.state = None
        if self.handed_over is not None:
            ray.get(self.handed_over)  # before the trial ends, so that nothing is written after its end
        ray.get(self.keeper.rest.remote(self.number))
        return result

    def _to_next_rung(self) -> dict:
        if self.run is None:
            self._beat()  # from now on it is missed: an architecture may hang while it is built
            self._begin()
        elif self.state:
            self._hand_over_state()  # it was not stopped at its rung
        interrupted = self._beat()
        if interrupted and not self.state and not self._is_needed():
            return {"interrupted": True, "budget": 0.0}
        beat = time.monotonic()
        # Rungs so close that they fall on one step are judged there one after the other.
        # A search that is over before its first network has one step of it.
        while not (interrupted and self.state) and not self._reached(self.rungs[self.rung]):
            began = time.monotonic()
            metrics, state = next(self.run)
            if self.state is None:  # what it had trained before may have passed rungs already
                self.rung = sum(state.step > state.steps_at(budget) for budget in self.rungs)
            self.state = state
            self.losses.append(metrics["loss"])
            now = time.monotonic()
            self.train_s += now - began
            if now - beat > BEAT:
                beat, interrupted = now, self._beat()
        interrupted = interrupted and not self._reached(self.rungs[self.rung])
        if interrupted:
            self._hand_over_state()
        return self._evaluate(interrupted)

    def _begin(self):
        """From the state that lies at the keeper, if there is one that fits; else from the start."""
        self.config = TrialConfig.from_flat(self.flat)
        self.rungs = [share * self.config.epochs for share in self.shares]
        self.own = of_fold(self.data, self.config.folds, self.config.fold)
        if self.config.unlabelled:
            if self.config.fold not in self.teachers:
                raise BadInput(ONLY_FINALISTS)
            self.own = with_unlabelled(self.own, self.teachers[self.config.fold])
        begun = ray.get(self.keeper.state.remote(self.number))
        if begun is not None:
            try:
                self.run = fit(self.config, self.own, self.device, begun)
                told = checkpoint.about(begun)
                self.train_s, self.eval_s = told["spent"]
                self.losses = [torch.tensor(loss) for loss in told["losses"]]
                return
            except BadInput:
                pass  # another version's
        self.run = fit(self.config, self.own, self.device)

    def _is_needed(self) -> bool:
        """Return whether a search would end without any network but this."""
        return not self.config.folds and ray.get(self.keeper.is_empty.remote())

    def _reached(self, budget: float) -> bool:
        return self.state is not None and self.state.step >= self.state.steps_at(budget)

    def _beat(self) -> bool:
        """Whether the search is over."""
        budget = self.state.budget if self.state else 0.0
        over, why = ray.get(self.keeper.beat.remote(self.number, budget, self.train_s, self.eval_s, self.process))
        if why:
            if self.state:
                self._hand_over_state()
                ray.get(self.handed_over)
            raise Preempted(why + (f" at {budget:.2f} epochs" if self.state else ""))
        return over

    def _evaluate(self, interrupted: bool) -> dict:
        began = time.monotonic()
        metrics, probs = evaluate(self.state, self.own.val, beat=self._beat)
        metrics |= mean_loss(self.losses)
        self.losses = []
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
            "rung": self.rung - 1,
            "files": json.dumps(files),
        }

    def _hand_over(self, metrics: dict, probs: np.ndarray) -> dict[str, str]:
        """Give the network to the keeper: of a search if it is among the best, of a finalist when it is finished. Its files'
        names and digests, written before told."""
        if self.config.folds:
            wanted = self._reached(self.rungs[-1])
        else:
            wanted = ray.get(self.keeper.wants.remote(self.number, metrics["val_loss"]))
        if not wanted:
            return {}
        files = saved.pack(self.config, self.own, self.state, metrics)
        said = self._predictions(metrics["temperature"]) if self.config.folds else {"val": probs}
        files[PROBS] = safetensors.numpy.save({name: p.astype(np.float32) for name, p in said.items()})
        return ray.get(self.keeper.keep.remote(self.number, metrics["val_loss"], files))

    def _predictions(self, temperature: float) -> dict[str, np.ndarray]:
        """What a finished network of a fold says of every split, in every view."""
        splits = {name: split for name in ("val", "test", "unlabelled") if len(split := getattr(self.own, name))}
        strengths = self.config.augment
        out = {}
        for number in range(self.views if can_view(strengths) else 1):
            for name, split in splits.items():
                seen = lambda images, number=number: view(images, strengths, number)  # noqa: E731
                logits = predict(self.state.best_network, split, self.state.plan, seen, self._beat)
                out[in_view(name, number)] = scores.softmax(logits, temperature)
        return out

    def _hand_over_state(self):
        losses = torch.stack(self.losses).tolist() if self.losses else []
        content = checkpoint.pack(self.state, spent=(self.train_s, self.eval_s), losses=losses)
        self.handed_over = self.keeper.hold.remote(self.number, self.state.step, content)


def _out_of_memory(wrong: Exception) -> bool:
    kinds, said = (torch.OutOfMemoryError, MemoryError), str(wrong)
    return isinstance(wrong, kinds) or "can't allocate memory" in said or "out of memory" in said
