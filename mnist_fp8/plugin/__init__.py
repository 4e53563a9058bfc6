"""The pytest plugin of the suite: run kinds, needs, expectations and what a run says of itself."""
