"""Machines that are taken away: what ran there goes on elsewhere from the very step, and nothing counts it as a failure."""

import threading
import time

import pytest
from ray._private.state import state
from ray._raylet import GcsClient
from ray.cluster_utils import Cluster
from ray.core.generated.autoscaler_pb2 import DRAIN_NODE_REASON_PREEMPTION

from sweeps.search import launch
from sweeps.search.cluster import cluster
from sweeps.search.draw import SEARCHERS
from sweeps.search.record import Record, read, rows
from sweeps.search.scheduler import SCHEDULERS
from sweeps.search.searcher import Search
from sweeps.search.space import Space
from trainable.ray_trial import RayTrial

pytestmark = pytest.mark.full
CONFIG = {"convnet.width": 8, "engine": "fp32-nhwc"}
TIMES = 10
STEPS = 3


@pytest.fixture
def machines():
    """A head without processors, and enough machines with one."""
    machines = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(TIMES + 1):
        machines.add_node(num_cpus=1, wait=False)
    machines.wait_for_nodes()
    yield machines
    machines.shutdown()


def where_it_trains() -> list[str]:
    """The nodes with a trial's process."""
    alive = state.actor_table(None, None, "ALIVE").values()
    return [actor["Address"]["NodeID"] for actor in alive if "Trainable" in actor["ActorClassName"]]


def search_of(folder) -> Search:
    folder.mkdir()
    more = {"sampler": SEARCHERS["random"], "scheduler": SCHEDULERS["none"](), "rungs": [2.0, 16.0], "trials": 1}
    return Search(Space(lambda trial: CONFIG), Record(folder / "record.db"), **more)


def held() -> type[RayTrial]:
    """A trial that goes a few steps each time that it is begun, and then waits until its machine is taken away: however fast it
    trains, it is there to be preempted. A class of a function travels whole; no worker could import this file."""

    class Held(RayTrial):
        def reset_config(self, new_config: dict) -> bool:
            self.attempt = new_config["attempt"]
            return super().reset_config(new_config)

        def _begin(self):
            super()._begin()
            self.run = self._held(self.run)

        def _held(self, run):
            for steps, last in enumerate(run, 1):
                yield last
                while steps >= STEPS and self.attempt < TIMES:
                    self._beat()
                    time.sleep(0.1)

    return Held


@pytest.mark.long
def test_ten_preemptions_of_one_trial(tmp_path, tiny, machines):
    """faults.md 10: as many restarts, no failure, each rung once, and the numbers of one that was left in peace."""
    over, drained = threading.Event(), []
    beats: dict[int, tuple] = {}

    def preempt():
        """As the end of a spot machine: a notice, and a while later the power goes."""
        gcs, reached = GcsClient(address=machines.address), 0.0
        while len(drained) < TIMES and not over.wait(0.2):
            trains = [node for node in where_it_trains() if node not in drained]
            budget = beats[0][0] if 0 in beats else 0.0
            if not trains or budget <= reached:
                continue
            reached = budget
            deadline = int((time.time() + 3600) * 1000)  # no haste
            accepted, why = gcs.drain_node(trains[0], DRAIN_NODE_REASON_PREEMPTION, "spot", deadline)
            assert accepted, why
            drained.append(trains[0])
            while len(rows(folder / "record.db", "restarts")) < len(drained) and not over.wait(0.2):
                pass
            machines.remove_node(next(n for n in machines.worker_nodes if n.node_id == trains[0]), allow_graceful=False)

    folder = tmp_path / "preempted"
    search = search_of(folder)
    with cluster(machines.address, 1, 0, None) as places:
        assert places.slots == TIMES + 1
        thread = threading.Thread(target=preempt)
        thread.start()
        try:
            more = {"tell": beats.update, "trainable": held()}
            broken = launch.run_search(search, tiny, places, launch.Ending(None), folder, **more)
        finally:
            over.set()
            thread.join()
        whole = tmp_path / "whole"
        alone = search_of(whole)
        assert launch.run_search(alone, tiny, places, launch.Ending(None), whole) is None
    assert broken is None
    restarts = rows(folder / "record.db", "restarts")
    assert len(drained) == len(restarts) == TIMES
    assert all(row["reason"].startswith("its machine was taken away") for row in restarts)
    [trial], rungs = read(folder / "record.db")
    assert trial["state"] == "complete"
    numbers = lambda rungs: [(row["rung"], row["metrics"]["val_loss"], row["metrics"]["train_loss"]) for row in rungs]  # noqa: E731
    assert numbers(rungs) == numbers(read(whole / "record.db")[1])
    assert [row["rung"] for row in rungs] == [0, 1]
