"""The analyst's console: a web page served on the workstation itself, an ordinary client of `scanner_io.client`."""
