"""The store: Parquet rows with one writer each, read back as records and queried with SQL."""

from emtta_core.store.catalogue import Catalogue
from emtta_core.store.parquet import BrokenFile
from emtta_core.store.reports import Parameter, Query, reports, views
from emtta_core.store.result import Result
from emtta_core.store.schema import (
    COMPLETE,
    FAILED,
    INTERRUPTED,
    AudioBytes,
    CellRow,
    HypothesisRow,
    LinkRow,
    PlanRow,
    PreparedRow,
    RescoreRow,
    RunRow,
    ScoreRow,
    StatisticsRow,
    StepRow,
    WindowRow,
)
from emtta_core.store.store import DoneUtterance, Store
from emtta_core.store.tables import CellKey, PreparedCorpus

__all__ = [
    "COMPLETE",
    "FAILED",
    "INTERRUPTED",
    "AudioBytes",
    "BrokenFile",
    "Catalogue",
    "CellKey",
    "CellRow",
    "DoneUtterance",
    "HypothesisRow",
    "LinkRow",
    "Parameter",
    "PlanRow",
    "PreparedCorpus",
    "PreparedRow",
    "Query",
    "RescoreRow",
    "Result",
    "RunRow",
    "ScoreRow",
    "StatisticsRow",
    "StepRow",
    "Store",
    "WindowRow",
    "reports",
    "views",
]
