"""Sweeps: many runs over settings and seeds, in a study that survives interruption, and what they say together."""

from framp_private.sweep.reading import read_sweep as read_sweep
from framp_private.sweep.reading import sweep_of as sweep_of
from framp_private.sweep.run import Machine as Machine
from framp_private.sweep.run import run_sweep as run_sweep
from framp_private.sweep.spec import Sweep as Sweep
