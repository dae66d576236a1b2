"""Alerts: their life, their words, their encodings, and where they go."""
