"""Diffusion as pure mathematics: schedules, predictions, samplers, guidance. It imports nothing of ours."""
