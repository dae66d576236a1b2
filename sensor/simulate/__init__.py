"""A labelled population of devices to train and test on, as events at fleet scale and as packets."""
