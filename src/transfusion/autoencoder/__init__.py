"""Autoencoders: pictures ↔ the latents that the transformer denoises."""
