"""One module per command of `unipet`, each with `main(argv) -> int`."""
