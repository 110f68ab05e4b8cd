"""Values -> cells -> populations -> chunks of rounds -> labelled results."""
