"""What selective inspection does to a gate, simulated: arrivals, lanes, analysts, opening places and ships."""
