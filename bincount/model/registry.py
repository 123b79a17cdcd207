"""Names of choices, such as model=resnet34, and what they stand for."""

from collections.abc import Callable
from typing import NoReturn, TypeVar

from bincount.errors import BadInput, nearest

T = TypeVar("T")


class Registry(dict[str, T]):
    """A dict of the choices for one config key; asking for an unknown name is the user's fault.

    Raises:
        BadInput: at `registry[name]`, if there is no such name; it proposes the nearest one.
    """

    def __init__(self, key: str) -> None:
        super().__init__()
        self.key = key

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that enters a function or class under `name`; a name can be given only once."""

        def enter(entry: T) -> T:
            if name in self:
                raise ValueError(f"{self.key}={name} is registered already")
            self[name] = entry
            return entry

        return enter

    def __missing__(self, name: str) -> NoReturn:
        raise BadInput(f"{self.key}={name}: there is no such {self.key}: {nearest(name, self)}")
