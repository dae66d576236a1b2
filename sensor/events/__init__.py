"""From packets to what happened: flows, dialogues, look-ups."""
