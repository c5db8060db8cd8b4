from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from embedding_trainers.models.bpr import BPR, BPRConfig
from embedding_trainers.trainer import Factors, find_trainer, known_trainers
from feast_embeddings.errors import EmbeddingsError, InputError


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with trainers of its own, some of them broken."""
    (tmp_path / "third_party_trainers.py").write_text(
        "from embedding_trainers.models.bpr import BPR as GOOD\nNOT_A_TRAINER = 1\n"
    )
    (tmp_path / "third_party_broken.py").write_text("import a_module_that_is_not_installed\n")
    info = tmp_path / "third_party-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: third-party\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[embedding_trainers]\n"
        "good = third_party_trainers:GOOD\n"
        "number = third_party_trainers:NOT_A_TRAINER\n"
        "absent = third_party_trainers:ABSENT\n"
        "broken = third_party_broken:BROKEN\n"
        "bpr-of-two = third_party_trainers:GOOD\n"
    )
    other = tmp_path / "other-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[embedding_trainers]\nbpr-of-two = elsewhere:X\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_bpr_is_found() -> None:
    """The trainer that comes with the package is registered."""
    assert find_trainer("bpr") is BPR
    assert "bpr" in known_trainers()


@pytest.mark.usefixtures("plugins")
def test_third_party() -> None:
    """Trainers of other packages are found by name, and broken ones among them disturb nobody."""
    theirs = ["absent", "bpr-of-two", "broken", "good", "number"]
    assert known_trainers() == sorted(
        [*theirs, "als", "bpr", "concat", "graph", "item2vec", "sasrec", "softmax", "svd"]
    )
    assert find_trainer("good") is BPR
    assert find_trainer("bpr") is BPR


@pytest.mark.usefixtures("plugins")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("broken", r"'broken' \(third_party_broken:BROKEN\) cannot be loaded: ModuleNotFoundError: .*not_installed"),
        ("absent", r"'absent' \(third_party_trainers:ABSENT\) cannot be loaded: AttributeError: "),
        ("number", r"third_party_trainers:NOT_A_TRAINER is not a Trainer, but int"),
        ("bpr-of-two", r"several packages bring a trainer 'bpr-of-two' \(.*\); uninstall all but one"),
        (
            "brp",
            r"no trainer 'brp'; installed are absent, als, bpr, bpr-of-two, broken, concat, good, graph, item2vec, "
            "number, sasrec, softmax, svd",
        ),
    ],
)
def test_unusable_trainer(name: str, message: str) -> None:
    """A trainer that is unknown, broken, ambiguous or no trainer is one clear line."""
    with pytest.raises(EmbeddingsError, match=message) as error:
        find_trainer(name)
    assert "\n" not in str(error.value)


def test_configure() -> None:
    """Text from the command line becomes the type of the parameter; the rest keeps its default."""
    config = BPR.configure({"factors": 8, "learning_rate": "0.5", "iterations": "3"})

    assert BPRConfig(factors=8, learning_rate=0.5, iterations=3) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.factors = 9


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"factor": 8},
            "no parameter 'factor'; there are factors, iterations, learning_rate, regularization, "
            "popularity_correction; did you mean 'factors'?",
        ),
        ({"factors": 0}, "parameter factors=0: Input should be greater than or equal to 1"),
        ({"factors": "many"}, "parameter factors='many': Input should be a valid integer"),
        ({"iterations": "1.5"}, "parameter iterations='1.5': Input should be a valid integer"),
        ({"learning_rate": "0"}, "parameter learning_rate='0': Input should be greater than 0"),
        ({"learning_rate": "nan"}, "parameter learning_rate='nan': Input should be a finite number"),
        ({"regularization": False}, "parameter regularization=False: expected no truth value"),
        ({"iterations": True}, "parameter iterations=True: expected no truth value"),
        ({"regularization": -1}, "parameter regularization=-1: Input should be greater than or equal to 0"),
    ],
)
def test_configure_refuses(parameters: dict[str, object], message: str) -> None:
    """Unknown names and values that are not allowed are named, on one line."""
    with pytest.raises(InputError) as error:
        BPR.configure(parameters)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", range(3))
def test_factors_are_finite(value: float, where: int) -> None:
    """Factors with NaN or infinity in any part do not come into being."""
    parts = [np.zeros((2, 3), np.float32), np.zeros((4, 3), np.float32), np.zeros(4, np.float32)]
    parts[where].flat[-1] = value

    with pytest.raises(InputError, match="diverged to NaN or infinity; lower the learning rate"):
        Factors(*parts)
