"""From simulated worlds to a model, and what it is worth on others: beside the sensor, never in its run path."""
