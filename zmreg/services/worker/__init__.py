"""The worker's side: calls taken, run and answered; actors hosted; functions served next to data."""
