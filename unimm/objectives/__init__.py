"""Image objectives: one file and one registry line each."""

from unimm.objectives.base import ObjectiveConfig
from unimm.objectives.diffusion import DiffusionConfig
from unimm.objectives.masked import MaskedConfig
from unimm.objectives.next_scale import NextScaleConfig
from unimm.objectives.next_token import NextTokenConfig
from unimm.objectives.transfusion import TransfusionConfig

OBJECTIVES: dict[str, type[ObjectiveConfig]] = {
    "next_token": NextTokenConfig,
    "next_scale": NextScaleConfig,
    "masked": MaskedConfig,
    "diffusion": DiffusionConfig,
    "transfusion": TransfusionConfig,
}
