"""How much is generated and trained."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Settings:
    """What decides the results.

    Attributes:
        seed: of the files and of everything that is drawn in training.
        train_items: of each task.
        test_items: of each task.
        tower_steps: of pretraining the towers.
        connector_steps: of pretraining the connector.
        reading_steps: of training the language model alone.
        steps: of training connector and language model together.
    """

    seed: int = 0
    train_items: int = 700
    test_items: int = 100
    tower_steps: int = 700
    connector_steps: int = 800
    reading_steps: int = 2500
    steps: int = 100


WHOLE = Settings()
"""Of the reference model."""

STUDY = replace(WHOLE, connector_steps=350, reading_steps=900, steps=20)
"""Of each run of the study."""

SMOKE = Settings(train_items=2, test_items=2, tower_steps=2, connector_steps=2, reading_steps=2, steps=2)
"""All of it in a minute, to see that it runs."""
