"""Quality of samples: what a judge reads, the published rules of gen_ppl, MAUVE, reference rows."""
