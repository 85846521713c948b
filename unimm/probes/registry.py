"""The probes: one file and one line each."""

from unimm.probes.classify import ClassifyConfig
from unimm.probes.correspond import CorrespondConfig
from unimm.probes.depth import DepthConfig
from unimm.probes.depth_sequence import DepthSequenceConfig
from unimm.probes.hyperfeatures import HyperfeaturesConfig
from unimm.probes.marigold import MarigoldConfig
from unimm.probes.probe import ProbeConfig
from unimm.probes.segment import SegmentConfig
from unimm.probes.zero_shot import ZeroShotConfig

PROBES: dict[str, type[ProbeConfig]] = {
    "classify": ClassifyConfig,
    "depth": DepthConfig,
    "correspond": CorrespondConfig,
    "segment": SegmentConfig,
    "hyperfeatures": HyperfeaturesConfig,
    "marigold": MarigoldConfig,
    "depth_sequence": DepthSequenceConfig,
    "zero_shot": ZeroShotConfig,
}
