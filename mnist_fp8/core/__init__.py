"""What every part of the project shares: errors, files, modes and the two kinds of run."""
