"""One agent, no federation: equations with their sources."""
