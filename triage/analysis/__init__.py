"""Pure functions of a scan: no transport, storage or threads."""
