"""What tables and figures are computed from beyond `repro.results.store`: from records alone, no torch."""
