"""A space of small networks, which one core trains in a second."""


def draw(trial):
    return {
        "arch": "convnet",
        "convnet.stages": 1,
        "convnet.width": trial.suggest_int("width", 2, 4),
        "lr": trial.suggest_float("lr", 5e-3, 5e-2, log=True),
        "optimizer": trial.suggest_categorical("optimizer", ["adamw", "sgd"]),
        "batch_size": 16,
        "engine": "fp32-nchw",
    }
