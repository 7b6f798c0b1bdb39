"""A space by its name, or from a user's file."""

import importlib.util
from pathlib import Path

import optuna

from sweeps.search.draw import draw_config
from sweeps.search.space import SPACES, Space
from trainable.errors import BadInput


def find_space(name: str) -> Space:
    """A space by its name in SPACES, or `FILE.py:function`.

    Raises:
        BadInput: no such name, file or function, or what it draws is no TrialConfig.
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
    spec = importlib.util.spec_from_file_location("user_space", path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as wrong:
        raise BadInput(f"space {name!r}: {path} does not run: {type(wrong).__name__}: {wrong}") from wrong
    if not callable(getattr(module, function, None)):
        raise BadInput(f"space {name!r}: {path} has no function {function}")
    space = Space(getattr(module, function))
    draw_config(space, optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask())
    return space
