"""An experiment: a section a file, TOML in and out."""
