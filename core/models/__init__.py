"""Networks as plain modules, each with the configuration object that builds it."""
