"""One module per command of `unipet`, each with `main(argv) -> int`. (`train` is in the room unipet.sweep.)"""
