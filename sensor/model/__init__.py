"""From features to verdicts and evidence."""
