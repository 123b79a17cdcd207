"""The service: photos come over HTTP, are counted together, and are answered."""
