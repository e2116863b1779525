"""``python -m transfusion``."""

from transfusion.cli import main

main()
