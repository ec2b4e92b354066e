"""The seeded simulator: plays the ad connectors, the link keeper and the event source of a made-up advertiser.

Pure and deterministic: the same arguments give the same bytes, on a calendar that ends on a fixed date. What comes
out has the wire shapes of the real connectors, with the faults that real feeds have, each counted as it is planted.
"""

from stream_app.simulator.deltas import live
from stream_app.simulator.simulation import Planted, Simulation, Step, simulate
from stream_app.simulator.wire import SimRecord

__all__ = ["Planted", "SimRecord", "Simulation", "Step", "live", "simulate"]
