"""Pretrained weights from the Hugging Face Hub: from its cache, or over the network."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit
from urllib.request import getproxies

from huggingface_hub import constants

from ..errors import ConfigError

TIMEOUT = 3.0  # seconds to wait for a connection; the Hub's client would retry for half a minute


@contextlib.contextmanager
def downloading(encoder: str, weights: str | None) -> Iterator[None]:
    """Inside the block pretrained weights are read; without a network only from the Hub's cache.

    Args:
        encoder: Name of the encoder.
        weights: Name of the weights; None downloads nothing.

    Raises:
        ConfigError: The weights are neither in the cache nor can they be downloaded.
    """
    if weights is None:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _is_reachable(constants.ENDPOINT)
    try:
        yield
    except OSError as error:  # that of a missing connection or file
        raise ConfigError(
            "pretrained weights cannot be loaded",
            subject=f"encoder_weights={weights!r} of {encoder!r}",
            found="no connection, and not in the cache" if constants.HF_HUB_OFFLINE else str(error),
            hint=f"connect once, or copy {constants.HF_HUB_CACHE} from a computer that has them; "
            "encoder_weights=None trains from scratch",
        ) from error
    finally:
        constants.HF_HUB_OFFLINE = before


def _is_reachable(address: str) -> bool:
    parts = urlsplit(address)
    if getproxies():  # connections go through them
        return True
    try:
        port = parts.port or (80 if parts.scheme == "http" else 443)
        socket.create_connection((parts.hostname or "", port), timeout=TIMEOUT).close()
    except OSError:
        return False
    return True
