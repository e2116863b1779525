"""Generation: the engine that previews, evaluators, the command line and servers share."""
