"""The probes: one file and one line each."""

from unimm.probes.classify import ClassifyConfig
from unimm.probes.depth import DepthConfig
from unimm.probes.probe import ProbeConfig
from unimm.probes.zero_shot import ZeroShotConfig

PROBES: dict[str, type[ProbeConfig]] = {
    "classify": ClassifyConfig,
    "depth": DepthConfig,
    "zero_shot": ZeroShotConfig,
}
