"""What of a model and a training does not go together is refused before anything starts."""

from pathlib import Path

import pytest
import yaml

from kuberec_api import RecModel, RecTraining
from kuberec_runtime.train.exitcode import classify
from kuberec_runtime.train.job import InvalidInputError, Job, TrainingInput

EXAMPLE = Path(__file__).parents[3] / "examples" / "feed.yaml"


def given(mode: str, eviction: dict[str, str] | None) -> TrainingInput:
    bodies = {body["kind"]: body for body in yaml.safe_load_all(EXAMPLE.read_text())}
    bodies["RecTraining"]["spec"]["synchronization"] = {"mode": mode}
    if eviction is not None:
        bodies["RecModel"]["spec"]["embeddings"]["defaults"]["eviction"] = eviction
    model, training = RecModel.model_validate(bodies["RecModel"]), RecTraining.model_validate(bodies["RecTraining"])
    return TrainingInput(model=model, training=training, attempt=1)


@pytest.mark.parametrize(("mode", "eviction"), [("Sync", None), ("Async", {"idle": "24h"})])
def test_either_alone_is_right(mode: str, eviction: dict[str, str] | None) -> None:
    job = Job.of(given(mode, eviction))
    job.check()
    assert job.synchronous is (mode == "Sync")


def test_sync_with_eviction_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="remove eviction, or set mode: Async") as error:
        Job.of(given("Sync", {"idle": "24h"})).check()
    assert classify(error.value).permanent
