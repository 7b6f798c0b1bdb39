"""A space by its name, or from a user's file."""

from pathlib import Path

import optuna

from sweeps.search.draw import draw_config
from sweeps.search.space import SPACES, Space
from sweeps.search.user_code import UserCode
from trainable.errors import BadInput


def find_space(name: str) -> Space:
    """A space by its name in SPACES, or `FILE.py:function`.

    Raises:
        BadInput: no such name, file or function, or what it draws is no TrialConfig, or it does not come back.
    """
    path, colon, function = name.rpartition(":")
    known = f"known: {', '.join(SPACES)}, or FILE.py:function"
    if name in SPACES:
        return SPACES[name]
    if name.endswith(".py"):
        raise BadInput(f"space {name!r}: say which function in it, as in {name}:draw")
    if not colon:
        raise BadInput(f"unknown space {name!r}; {known}")
    if not Path(path).is_file():
        raise BadInput(f"unknown space {name!r}: no file {path}; {known}")
    if not path.endswith(".py"):
        raise BadInput(f"space {name!r}: {path} should end with .py")
    space = Space(UserCode(Path(path).resolve(), function))
    draw_config(space, optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
    return space
