"""Queries whose rows are to be read as Arrow."""

from __future__ import annotations

from dataclasses import replace

from factory_lib.plan.nodes import Table
from factory_lib.plan.operators import Column
from factory_lib.plan.select import Select


def readable(plan: Select) -> Select:
    """BFloat16 has no Arrow type: such columns are read as Float32."""
    source = plan.source
    if not isinstance(source, Table):
        return plan
    wide = {
        name: e.cast("Array(Float32)")
        for name, e in plan.columns.items()
        if isinstance(e, Column) and source.columns.get(e.name) == "Array(BFloat16)"
    }
    return replace(plan, columns={**plan.columns, **wide}) if wide else plan
