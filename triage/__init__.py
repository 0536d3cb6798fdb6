"""Judgement and service: kernels, analysis, lane, console, studies."""
