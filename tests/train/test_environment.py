"""A training is tagged with all that can make its result differ. Needs no Spark."""

from pipelines.train import environment
from pipelines.train.settings import TrainSettings


def test_the_tags_name_every_possible_cause_of_a_difference() -> None:
    tags = environment.environment(TrainSettings(threads=1))
    assert tags["torch.threads"] == "1"
    assert set(tags) == {
        "git.commit",
        "git.dirty",
        "lock.sha256",
        "python",
        "platform",
        "cpu.flags",
        "torch.build",
        "torch.threads",
        "spark.cores",
        "device",
        "precision.auto",
    }
    assert len(tags["lock.sha256"]) == 64
    assert set(tags["cpu.flags"].split()) <= set(environment.CPU_FLAGS)
    assert all(isinstance(value, str) for value in tags.values())  # as MLflow requires
