"""The contracts: one TOML per table, folder = zone. Read by medpipe.contracts and by nothing else."""
