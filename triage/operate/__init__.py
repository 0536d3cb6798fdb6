"""What an operator needs beside the service: its unit, its configuration, and what is wrong on a host."""
