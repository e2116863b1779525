"""The network: trunk, patch encoders and decoders, and the cache that is handed to it."""
