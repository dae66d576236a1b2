"""Who is there, and what each device's mail looks like."""
