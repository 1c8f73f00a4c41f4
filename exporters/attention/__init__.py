"""One way per file of choosing which keys attention looks at: `edgetok export --attention`."""
