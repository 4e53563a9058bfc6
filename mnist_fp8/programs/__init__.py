"""Programs as JAX and XLA write them: jaxprs, compiled text, kernels that ran, and the cache of programs."""
