"""`python -m smrx` is `smrx`."""

from smrx.cli import main

if __name__ == "__main__":
    main()
