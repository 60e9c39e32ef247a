"""``python -m perennial.cli``."""

from perennial.cli import main

if __name__ == "__main__":
    main()
