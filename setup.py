"""What pyproject.toml cannot say: the forms of the stores that live in memory are for tests and stay out of the package."""

from setuptools import setup
from setuptools.command.build_py import build_py


class WithoutTwins(build_py):
    """Leaves out ``memory.py`` and ``memory_*.py`` of every room."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        """Modules of one package as (package, module, file)."""
        found = super().find_package_modules(package, package_dir)
        return [one for one in found if one[1] != "memory" and not one[1].startswith("memory_")]


setup(cmdclass={"build_py": WithoutTwins})
