"""Image objectives: one file and one registry line each."""

from unimm.objectives.base import ObjectiveConfig
from unimm.objectives.next_token import NextTokenConfig

OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    "next_token": NextTokenConfig,
}
