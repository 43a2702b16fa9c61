"""One file a command: a typed function, parsed by jsonargparse."""
