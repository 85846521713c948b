"""The probes: one file and one line each."""

from unimm.probes.classify import ClassifyConfig
from unimm.probes.probe import ProbeConfig

PROBES: dict[str, type[ProbeConfig]] = {
    "classify": ClassifyConfig,
}
