"""Signals: computed columns, declared, and the ones that are bundled."""

from factory_lib.signals.dependencies import env
from factory_lib.signals.member import Member
from factory_lib.signals.outputs import Vector
from factory_lib.signals.signal import Signal, signal

__all__ = ["Member", "Signal", "Vector", "env", "signal"]
