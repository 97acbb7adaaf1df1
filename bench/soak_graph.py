"""The code location of a soak: the tests' graph over the soak's tars, with what the daemon acts by."""

from __future__ import annotations

import os
from pathlib import Path

import dagster as dg

from bench.soak_doings import SOURCE
from tests.dagster_graph import graph

defs = dg.Definitions.merge(
    graph(Path(os.environ[SOURCE])),
    dg.Definitions(
        sensors=[
            dg.AutomationConditionSensorDefinition(
                "automation",
                target=dg.AssetSelection.all(),
                minimum_interval_seconds=1,
                default_status=dg.DefaultSensorStatus.RUNNING,
                use_user_code_server=True,
            )
        ]
    ),
)
