"""The language every part of scanlane speaks: types, configuration, drivers' contract, recording, wire."""

__version__ = "0.1.0"
