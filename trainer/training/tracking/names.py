"""What runs are called, and which variables say where they are told."""

from trainer.config import TrainConfig

#: Of W&B's project and of the experiment of Vertex AI, where no variable says another.
PROJECT = "fma-genre-classifiers"
#: Names of the experiment and of the TensorBoard instance that keeps its series.
EXPERIMENT = "VERTEX_EXPERIMENT"
TENSORBOARD = "VERTEX_TENSORBOARD"


def run_name(config: TrainConfig) -> str:
    """A run's name for people: the model's folder and the one above it."""
    return "-".join(config.output.rstrip("/").split("/")[-2:])
