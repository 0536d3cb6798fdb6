"""The test list of reliability: faults and attacks on the real daemon, each with its figure."""
