"""What tables and figures are computed from beyond `repro.results`: from records alone, no torch."""
