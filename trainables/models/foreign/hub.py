"""Files of the Hugging Face hub: from the machine's cache, or fetched; at once a line where neither can be.

The hub's own client tries for half a minute for each file on a machine without a network.
"""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import Final

from trainables.errors import ConfigError
from trainables.foreign_files import foreign_file
from trainables.models.foreign.extras import extra

_ANSWER_S: Final = 5.0


def hub_file(repository: str, name: str) -> Path | None:
    """A file of a repository, on this machine; none where the repository has no such file.

    Raises:
        ConfigError: it is not in the cache, and the hub is not to be asked, cannot be reached, or refuses.
    """
    hub = extra("huggingface_hub")
    cache = hub.constants.HF_HUB_CACHE
    with foreign_file(lambda why: ConfigError(f"{repository!r} is no name on the hub: {why}")):
        known = hub.try_to_load_from_cache(repository, name)
    if isinstance(known, str):
        return Path(known)
    if known is not None:
        return None
    lacking = f"{repository} ({name}) is not in the cache of the hub on this machine ({cache})"
    advice = "fetch it where there is a network and bring the cache here (HF_HUB_CACHE), or name a folder"
    if hub.constants.HF_HUB_OFFLINE:
        raise ConfigError(f"{lacking}, and HF_HUB_OFFLINE is set; {advice}")
    unreachable = why_unreachable(hub.constants.ENDPOINT)
    if unreachable is not None:
        raise ConfigError(
            f"{lacking}, and {hub.constants.ENDPOINT} cannot be reached ({unreachable}); {advice}"
        )
    try:
        with foreign_file(
            lambda why: ConfigError(f"{lacking}, and the hub does not give it: {why}; {advice}")
        ):
            return Path(hub.hf_hub_download(repository, name))
    except ConfigError as error:
        cause, missing = error.__cause__, hub.errors.EntryNotFoundError
        if isinstance(cause, missing) and not isinstance(cause, hub.errors.LocalEntryNotFoundError):
            return None
        raise


def why_unreachable(endpoint: str) -> str | None:
    """Why nobody answers there within some seconds; none where somebody does, whatever he says."""
    if not endpoint.startswith(("https://", "http://")):
        return "HF_ENDPOINT is no http address"
    try:
        request = urllib.request.Request(endpoint, method="HEAD")  # noqa: S310 (http, see above)
        urllib.request.urlopen(request, timeout=_ANSWER_S).close()  # noqa: S310
    except urllib.error.HTTPError:
        return None
    except OSError as error:
        return str(getattr(error, "reason", error))
    return None
