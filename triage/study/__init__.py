"""Evaluation, calibration and benchmarks of the triage path."""
