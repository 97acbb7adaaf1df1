"""Errors: what a caller got wrong is one of Python's own errors, too."""

from __future__ import annotations

import pickle

import pytest

from factory_lib import errors
from factory_lib.errors import FactoryError

WRONG_VALUES = {"ExportError", "InvalidName", "PublicationError", "QueryError", "SettingsError", "TagExists"}
NOT_THERE = {"NotFound", "DatasetNotFound", "VersionNotFound", "ColumnNotFound"}
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FactoryError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_input_errors_are_pythons_own_too(kind: type[FactoryError]) -> None:
    assert issubclass(kind, ValueError) == (kind.__name__ in WRONG_VALUES)
    assert issubclass(kind, LookupError) == (kind.__name__ in NOT_THERE)
    error = kind("There is no 'x'.", "Did you mean 'y'?")
    assert str(error) == "There is no 'x'. Did you mean 'y'?"
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.hint) == (kind, error.message, error.hint)
