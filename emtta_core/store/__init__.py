"""The store: Parquet rows with one writer each, read back as records and queried with SQL."""

from emtta_core.store.schema import (
    COMPLETE,
    FAILED,
    AudioBytes,
    CellRow,
    HypothesisRow,
    PlanRow,
    PreparedRow,
    RunRow,
    ScoreRow,
    StepRow,
)
from emtta_core.store.store import CellKey, PreparedCorpus, Store

__all__ = [
    "COMPLETE",
    "FAILED",
    "AudioBytes",
    "CellKey",
    "CellRow",
    "HypothesisRow",
    "PlanRow",
    "PreparedCorpus",
    "PreparedRow",
    "RunRow",
    "ScoreRow",
    "StepRow",
    "Store",
]
