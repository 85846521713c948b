"""The judges that can be asked: one file and one line each."""

from unimm.judges.http import HttpJudgeConfig
from unimm.judges.judge import JudgeConfig
from unimm.judges.oracle import OracleConfig
from unimm.judges.replay import ReplayConfig

JUDGES: dict[str, type[JudgeConfig]] = {
    "http": HttpJudgeConfig,
    "oracle": OracleConfig,
    "replay": ReplayConfig,
}
