"""Foreign files, one module per format."""
