"""Devices: one file each, nothing shared but `scanner_io`."""
