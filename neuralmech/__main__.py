"""``python -m neuralmech``."""

from neuralmech.cli import main

if __name__ == "__main__":
    main()
