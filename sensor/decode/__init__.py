"""From bytes to headers and messages; sans-io, stateless."""
