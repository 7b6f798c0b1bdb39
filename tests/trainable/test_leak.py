import itertools

import pytest

from trainable.datasets import DATASETS, default_dataset, load, refuse_leak
from trainable.datasets.leak import COMPETITION, HAS_THE_ANSWERS, after_training, refuse_seen
from trainable.errors import BadInput


def test_the_sets_themselves():
    """Whoever changes them changes this line too."""
    assert sorted(COMPETITION) == ["digit-recognizer", "digits-sample"]
    assert sorted(HAS_THE_ANSWERS) == ["emnist", "mnist", "qmnist"]
    assert set(DATASETS) > COMPETITION


@pytest.mark.parametrize(("ours", "theirs"), list(itertools.product(sorted(COMPETITION), sorted(HAS_THE_ANSWERS))))
def test_they_never_meet(ours, theirs):
    for names in ([ours, theirs], ["cifar10", theirs, ours], iter((theirs, ours))):
        with pytest.raises(BadInput, match=f"^{theirs} may not meet {ours}: .*the answers$") as refusal:
            refuse_leak(names)
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("names", [[], COMPETITION, HAS_THE_ANSWERS, ["digits-sample", "kmnist", "imagenet", "folder-mnist"]])
def test_each_side_by_itself_may(names):
    refuse_leak(names)


@pytest.mark.parametrize("origin", ["unknown", "folder-mnist_png", "csv-data"])
@pytest.mark.parametrize("asked", sorted(COMPETITION))
def test_nobody_says_what_a_folder_held(origin, asked):
    with pytest.raises(BadInput, match=f"weights that learned from {origin} may not meet {asked}: nobody says"):
        refuse_leak(["imagenet", origin], asked)
    refuse_leak([origin, asked], "folder-mine")  # the competition's network, on images of one's own
    refuse_leak(["imagenet"], asked)


def test_what_was_trained_on_does_not_judge():
    one, other = sorted(COMPETITION)
    for split in ("val", "test", "train"):
        with pytest.raises(BadInput, match="share images"):
            refuse_seen([one], other, split)
        refuse_seen([one], one, split)
    taught = after_training("kmnist", ["imagenet"], on_val=True)
    assert set(taught) > {"kmnist", "imagenet"}
    with pytest.raises(BadInput, match="trained with --all-labels has seen the val of kmnist"):
        refuse_seen(taught, "kmnist", "val")
    refuse_seen(taught, "kmnist", "test")
    refuse_seen(taught, "cifar10", "val")
    assert after_training("kmnist", ["imagenet"], on_val=False) == ("imagenet", "kmnist")


def test_every_dataset_with_mnist_in_its_name_was_thought_of():
    clean = {"fashion-mnist", "kmnist"}  # clothes; another country's letters
    assert {name for name in DATASETS if "mnist" in name} - clean <= HAS_THE_ANSWERS


def test_mnist_in_the_competitions_form_but_not_its_columns_is_refused(tmp_path):
    """As MNIST's CSVs on the net have them: label,1x1,1x2,..."""
    names = [f"{row}x{column}" for row in range(1, 29) for column in range(1, 29)]
    for file in ("train.csv", "test.csv"):
        (tmp_path / file).write_text(",".join(["label", *names]) + "\n" + ",".join(["5"] + ["0"] * 784) + "\n")
    with pytest.raises(BadInput, match="train.csv has 785 columns, label to 28x28; it should have 785, label to pixel783"):
        load("digit-recognizer", tmp_path)


def test_mnists_files_are_not_the_competitions(tmp_path):
    (tmp_path / "mnist").mkdir()
    (tmp_path / "mnist" / "train-images-idx3-ubyte.gz").write_bytes(b"")
    assert default_dataset(tmp_path)[0] == "digits-sample"
    for where in (tmp_path, tmp_path / "mnist"):
        with pytest.raises(BadInput, match="digit-recognizer needs"):
            load("digit-recognizer", where)
