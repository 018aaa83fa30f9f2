"""`python -m proxy` is `penstock`."""

from proxy.cli import main

if __name__ == "__main__":
    main()
