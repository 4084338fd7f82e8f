"""A connection to a Dask cluster, made only when it is asked for.

Dask's protocol carries pickles: who reaches a scheduler or a worker can run programs
there. So the ends show each other certificates (mutual TLS), which Dask's own
configuration names; see docs/cluster.md.
"""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import pickle
import re
import threading
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet import __version__
from napari_cmunet.errors import ClusterError, UsageError, display_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from distributed import Client, Future, Security

ONE_AT_A_TIME = threading.Lock()
"""On a worker: torch's threads and random numbers are those of the process."""

_ADDRESS = re.compile(r"(tls|tcp)://(\[[0-9a-fA-F:.]+\]|[\w.-]+):\d{1,5}")
_SECONDS_TO_CONNECT = 15
_SECONDS_FOR_A_WORKER = 30


def is_address(device: str) -> bool:
    """Whether a chosen device is a cluster rather than one of this machine."""
    return "://" in device


def check_address(address: str, plain_tcp: bool = False) -> None:
    """Raise UsageError unless this is a scheduler's address, and a safe one.

    Parameters
    ----------
    plain_tcp : bool
        Allow a connection without TLS to another machine.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(
            "A cluster's address is that of its scheduler: tls://HOST:PORT"
        )
    if found[1] == "tcp" and not plain_tcp and not _is_loopback(found[2]):
        raise UsageError(
            f"{address} is not encrypted: others on the network could read the images "
            "and run programs on the workers. Use tls:// with certificates, or add "
            "--plain-tcp where nobody else reaches the network."
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def connect(address: str, plain_tcp: bool = False) -> Iterator[Client]:
    """Connect to a cluster whose workers have this version of the program.

    All data goes through the scheduler: no other address is connected to.

    Raises
    ------
    UsageError
        If dask.distributed is not installed, or the address or certificates do not do.
    ClusterError
        If the cluster does not answer, has no worker, or another version.
    """
    check_address(address, plain_tcp)
    try:
        from distributed import Client
    except ImportError as error:
        raise UsageError(
            "A cluster needs dask.distributed. Install it with: "
            'pip install "napari-cmunet[cluster]"'
        ) from error
    for name in ("distributed", "distributed.client"):
        # What is wrong is said by the errors below.
        logging.getLogger(name).setLevel(logging.CRITICAL)
    security = _security(address)
    try:
        client = Client(
            address,
            security=security,
            timeout=_SECONDS_TO_CONNECT,
            set_as_default=False,
            direct_to_workers=False,
        )
    except OSError as error:
        raise ClusterError(
            f"The cluster at {address} does not answer, or the certificates of the two "
            "ends are not of one authority."
        ) from error
    with client, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sending large graph")
        _check_versions(client)
        yield client


def _security(address: str) -> Security:
    """The certificates that Dask's configuration names."""
    from distributed import Security

    if not address.startswith("tls:"):
        return Security()
    security = Security(require_encryption=True)
    names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    files = {name: getattr(security, name) for name in names}
    if not files["tls_ca_file"] or not files["tls_client_cert"]:
        raise UsageError(
            "Dask's configuration names no certificates. Set ca-file and client.cert "
            "under distributed.comm.tls; see docs/cluster.md."
        )
    for file in filter(None, files.values()):
        if not Path(file).is_file():
            raise UsageError(f"The certificate {display_name(file)} does not exist.")
    return security


def _check_versions(client: Client) -> None:
    try:
        client.wait_for_workers(1, timeout=_SECONDS_FOR_A_WORKER)
    except TimeoutError as error:
        raise ClusterError("The cluster has no worker.") from error
    try:
        found = {client.run_on_scheduler(installed_version)}
        found |= set(client.run(installed_version).values())
    except (ImportError, OSError, AttributeError) as error:
        raise ClusterError(
            "napari-cmunet is not installed on every machine of the cluster, or a "
            f"worker went away ({error})."
        ) from error
    if others := found - {__version__}:
        raise ClusterError(
            f"The cluster has napari-cmunet {', '.join(sorted(others))}, this machine "
            f"{__version__}. Install the same version everywhere."
        )


def submit(
    client: Client,
    function: Callable[..., Any],
    *args: Any,
    futures: Sequence[Future] = (),
    **how: Any,
) -> Future:
    """Call ``function(*args, *futures)`` on a worker.

    The call is packed: the scheduler need not load torch for it.
    """
    packed = pickle.dumps((function, args), protocol=5)
    return client.submit(_call, packed, *futures, **how)


def _call(packed: bytes, *more: Any) -> Any:
    function, args = pickle.loads(packed)
    return function(*args, *more)


def installed_version() -> str:
    """The version of the program where this runs."""
    return __version__
