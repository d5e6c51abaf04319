"""jaxdiff: the diffusion library for JAX."""
