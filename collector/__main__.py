"""`python -m collector` = `otel-sidecar`."""

from collector.cli import main

if __name__ == "__main__":
    main(prog_name="otel-sidecar")
