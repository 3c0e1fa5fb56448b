"""The one way to a user's own code: a name of the form "module:function"."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType

from trainables.config.base import FactoryPath
from trainables.errors import ConfigError, StillhouseError
from trainables.user_code import OWN_PACKAGES, code_folders, code_importable, refuse_our_names


def load_factory(path: FactoryPath) -> Callable[..., object]:
    """The function that "module:function" names.

    The module may lie beside the experiment's file, or in the current directory: where these are not on
    `sys.path`, they stand in front of it while the module is imported, and while its function is called, and
    are taken away afterwards. Our own packages come first: a file with the name of one of them is refused.

    Raises:
        ConfigError: the module or the function is missing, cannot be imported or cannot be called.
    """
    module_name, separator, function_name = path.partition(":")
    if not (module_name and separator and function_name):
        raise ConfigError(f'factory {path!r} is not of the form "module:function", as "my_data:make_images"')
    module = _import_module(module_name, path)
    factory = getattr(module, function_name, None)
    if factory is None:
        callables = [name for name, value in vars(module).items() if callable(value)]
        raise ConfigError(
            f"factory {path!r}: module {module_name} ({_origin(module)}) has no function {function_name!r}"
            f"{_nearest(function_name, callables)}"
        )
    if not callable(factory):
        raise ConfigError(
            f"factory {path!r}: {function_name!r} in {_origin(module)} is a {type(factory).__name__}, "
            "not a function; name a function or a class"
        )
    result: Callable[..., object] = factory
    return result


def call_factory(path: FactoryPath, given: Mapping[str, object], arguments: Mapping[str, object]) -> object:
    """What the factory returns for the keyword arguments that Stillhouse gives and those of the file.

    Raises:
        ConfigError: as `load_factory`; or the function does not take these keyword arguments, or raises.
    """
    factory = load_factory(path)
    both = sorted(given.keys() & arguments.keys())
    if both:
        raise ConfigError(
            f"factory {path!r}: `arguments` may not hold {', '.join(both)}; Stillhouse itself passes that"
        )
    keywords = {**given, **arguments}
    try:
        signature = inspect.signature(factory)
    except ValueError:  # some callables written in C tell nothing about their arguments
        return _called(path, factory, keywords)
    try:
        signature.bind(**keywords)
    except TypeError as error:
        raise ConfigError(
            f"factory {path!r} has the signature {signature} and cannot be called with "
            f"{', '.join(f'{key}={value!r}' for key, value in keywords.items()) or 'no arguments'}: {error}"
            f"{_other_name(error)}"
        ) from error
    return _called(path, factory, keywords)


def accepted_keyword(path: FactoryPath, names: Sequence[str], arguments: Mapping[str, object]) -> str | None:
    """The first of these keyword arguments that the factory names; none where it takes none of them.

    A factory that takes any (`**`) and names none takes the first, unless `arguments` hold another of them.

    Raises:
        ConfigError: as `load_factory`.
    """
    factory = load_factory(path)
    try:
        parameters = inspect.signature(factory).parameters
    except ValueError:  # some callables written in C tell nothing about their arguments
        return names[0]
    by_keyword = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    for name in names:
        if name in parameters and parameters[name].kind in by_keyword:
            return name
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values())
    return names[0] if takes_any and arguments.keys().isdisjoint(names[1:]) else None


def in_one_line(error: BaseException) -> str:
    """What a user's code raised, and where."""
    frames = list(traceback.extract_tb(error.__traceback__))
    # The deepest line of the user's own, where an installed library raised.
    frames = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"


def _called(path: FactoryPath, factory: Callable[..., object], keywords: Mapping[str, object]) -> object:
    try:
        with code_importable():
            return factory(**keywords)
    except StillhouseError:
        raise
    except (Exception, SystemExit) as error:  # a user's function may raise anything
        raise ConfigError(
            f"factory {path!r} raised {in_one_line(error)}{_other_name(error)}; mend it, or its `arguments`"
        ) from error


def _other_name(error: BaseException) -> str:
    """What helps with builders, as timm's, that call the number of classes otherwise."""
    if not (isinstance(error, TypeError) and "'n_classes'" in str(error)):
        return ""
    return (
        "; a factory that names neither `n_classes` nor `num_classes` and takes `**` is called with "
        "`n_classes`: where a library's builder wants `num_classes`, write that, with the number of classes, "
        "among its `arguments`"
    )


def _import_module(name: str, path: str) -> ModuleType:
    if name not in sys.modules or name.partition(".")[0] in OWN_PACKAGES:
        refuse_our_names(path)
    with code_importable():
        importlib.invalidate_caches()  # the file may be younger than the folder listing that Python keeps
        try:
            return importlib.import_module(name)
        except ModuleNotFoundError as error:
            missing = error.name or name
            if missing == name or name.startswith(f"{missing}."):
                raise ConfigError(
                    f"factory {path!r}: no module named {missing!r} on sys.path or in "
                    f"{' or '.join(map(str, code_folders()))}"
                    f"{_nearest(missing, _sibling_modules(missing))}"
                ) from error
            raise ConfigError(
                f"factory {path!r}: module {name!r} imports {missing!r}, which is not installed here; "
                "install it on every node, or remove that import"
            ) from error
        except ImportError as error:
            raise ConfigError(f"factory {path!r}: module {name!r} cannot be imported: {error}") from error
        except SyntaxError as error:
            raise ConfigError(
                f"factory {path!r}: syntax error in {error.filename}, line {error.lineno}: {error.msg}"
            ) from error
        except (Exception, SystemExit) as error:  # a user's module may raise anything
            raise ConfigError(
                f"factory {path!r}: module {name!r} raised {in_one_line(error)} when it was imported"
            ) from error


def _sibling_modules(name: str) -> list[str]:
    """Full names of the modules beside `name`; nothing is imported to find them."""
    parent, _, _ = name.rpartition(".")
    if not parent:
        return [*sys.builtin_module_names, *(module.name for module in pkgutil.iter_modules())]
    # A missing "parent.name" means that "parent" itself was imported a moment ago.
    folders = list(getattr(sys.modules.get(parent), "__path__", []))
    return [f"{parent}.{module.name}" for module in pkgutil.iter_modules(folders)]


def _origin(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"


def _nearest(name: str, known: list[str]) -> str:
    close = get_close_matches(name, known, n=3, cutoff=0.6)
    return (
        f"; near: {', '.join(close)}"
        if close
        else "; check the spelling, and that it lies beside the experiment's file"
    )
