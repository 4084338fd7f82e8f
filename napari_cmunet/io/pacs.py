"""A PACS by DICOMweb: QIDO-RS, WADO-RS and STOW-RS, with dicomweb-client.

Nothing is imported or opened before a :class:`Pacs` is made, which only the command
``pacs`` does.
"""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from napari_cmunet.errors import (
    PacsError,
    PacsGoneError,
    ReadError,
    UsageError,
    printable,
)
from napari_cmunet.io.dicom.derived import PATIENT_AND_STUDY
from napari_cmunet.util.safe_files import atomic_write

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from pydicom import Dataset

USER = "NAPARI_CMUNET_PACS_USER"
PASSWORD = "NAPARI_CMUNET_PACS_PASSWORD"
TOKEN = "NAPARI_CMUNET_PACS_TOKEN"
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TIMEOUT = (10, 120)  # seconds to connect, and between two packets
_MOST = 1000  # results of one search
_STORED, _FAILED = "ReferencedSOPSequence", "FailedSOPSequence"
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Series:
    """A series that was found, with what its study says."""

    study: str
    series: str
    date: str
    modality: str
    instances: str
    description: str
    patient_id: str
    patient_name: str
    birth_date: str


class Pacs:
    """A server that speaks DICOMweb.

    Credentials are taken from the environment, else from the system's keyring. Proxies
    and ``.netrc`` are not used, and no redirection is followed.

    Parameters
    ----------
    url : str
        Where its services begin, ``https://HOST/dicom-web``. Without TLS only on this
        machine.
    ca : Path, optional
        Certificates (PEM) to trust instead of the usual authorities.

    Raises
    ------
    UsageError
    """

    def __init__(self, url: str, ca: Path | None = None) -> None:
        try:
            from dicomweb_client import DICOMwebClient
            from requests import Session
        except ImportError as error:
            raise UsageError(
                "A PACS needs dicomweb-client. Install it with: "
                'pip install "napari-cmunet[pacs]"'
            ) from error
        for name in ("dicomweb_client", "retrying"):  # they log URLs and answers
            logging.getLogger(name).disabled = True
            logging.getLogger(name).propagate = False
        _check(url)
        if ca is not None and not ca.is_file():
            raise UsageError("The file of certificates (--ca) does not exist.")
        session = Session()
        session.trust_env = False
        session.max_redirects = 0
        session.verify = str(ca) if ca else True
        if token := os.environ.get(TOKEN):
            session.headers["Authorization"] = f"Bearer {token}"
        else:
            session.auth = _credentials(url)
        self._client = DICOMwebClient(url.rstrip("/"), session, timeout=_TIMEOUT)
        self._client.set_http_retry_params(retry=False)

    def find(self, filters: Mapping[str, str], modality: str = "") -> list[Series]:
        """Return the series of the studies that match.

        Parameters
        ----------
        filters : mapping
            Values by DICOM keyword, such as ``PatientID`` or ``StudyDate``; ``*`` and
            ranges of dates as in DICOM.
        modality : str
            Of the series; any if empty.

        Raises
        ------
        PacsError
        """
        wanted = dict(filters)
        of_series = {"Modality": modality} if modality else {}
        if modality:
            wanted["ModalitiesInStudy"] = modality
        found = []
        for study in self._search(self._client.search_for_studies, wanted):
            uid = _text(study, "StudyInstanceUID")
            found += [
                Series(
                    uid,
                    _text(series, "SeriesInstanceUID"),
                    _text(study, "StudyDate"),
                    _text(series, "Modality"),
                    _text(series, "NumberOfSeriesRelatedInstances"),
                    _text(series, "SeriesDescription"),
                    _text(study, "PatientID"),
                    _text(study, "PatientName"),
                    _text(study, "PatientBirthDate"),
                )
                for series in self._search(
                    self._client.search_for_series, of_series, study_instance_uid=uid
                )
            ]
        return found

    def instances(self, study: str, series: str = "") -> list[tuple[str, str, str]]:
        """Return study, series and instance UID of each instance; raises PacsError."""
        of_series = {"series_instance_uid": series} if series else {}
        found = self._search(
            self._client.search_for_instances,
            {},
            study_instance_uid=study,
            **of_series,
        )
        names = ("SeriesInstanceUID", "SOPInstanceUID")
        return [(study, *(_text(item, name) for name in names)) for item in found]  # type: ignore[misc]

    def get(self, study: str, series: str, instance: str, folder: Path) -> Path:
        """Fetch an instance, unless it is there: a file in the folder is whole.

        Raises
        ------
        PacsError, WriteError
        """
        if not _UID.fullmatch(instance):
            raise PacsError("The PACS names an instance by what is no UID.")
        path = folder / f"{instance}.dcm"
        if path.is_file():
            return path
        with _in_words():
            got = self._client.retrieve_instance(study, series, instance)
            if got.SOPInstanceUID != instance or not _is_whole(got):
                raise ValueError("another instance, or a part of it")
        with atomic_write(path) as handle:
            got.save_as(handle, enforce_file_format=True)
        return path

    def store(self, path: Path) -> None:
        """Store a file in the archive.

        An object without a patient, as this program writes them, gets on the way the
        patient and study that the archive has for its study. The file stays as it is.

        Raises
        ------
        PacsError, ReadError
        """
        import pydicom

        try:
            made = pydicom.dcmread(path)
            study, instance = made.StudyInstanceUID, made.SOPInstanceUID
            if not _is_whole(made):
                raise ValueError("cut short")
        except OSError as error:
            raise ReadError(path, "it cannot be read.") from error
        except Exception:  # noqa: BLE001 - pydicom's errors quote values
            raise ReadError(path, "it is no whole DICOM object.") from None
        if not made.get("PatientID") and not made.get("PatientName"):
            self._identify(made, study)
        with _in_words():
            answer = self._client.store_instances([made])
        stored = [x.ReferencedSOPInstanceUID for x in answer.get(_STORED, [])]
        if answer.get(_FAILED) or instance not in stored:
            raise PacsError(
                "The PACS did not take it. Its log says why; perhaps it stores no "
                "objects of this kind."
            )

    def _identify(self, made: Dataset, study: str) -> None:
        known = self._search(
            self._client.search_for_studies, {"StudyInstanceUID": study}
        )
        if not known:
            raise PacsError(
                "The PACS has no study that this object belongs to, so that its "
                "patient is not known. Store the images first."
            )
        made.SpecificCharacterSet = "ISO_IR 192"
        for keyword in (*PATIENT_AND_STUDY, "IssuerOfPatientID"):
            if value := known[0].get(keyword):
                setattr(made, keyword, value)

    def _search(
        self, search: Any, filters: Mapping[str, str], **which: str
    ) -> list[Dataset]:
        from pydicom import Dataset

        with _in_words():
            found = search(search_filters=dict(filters), limit=_MOST, **which)
            return [Dataset.from_json(item) for item in found]


def _check(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError("The PACS is named by a URL: https://HOST/dicom-web.")
    if parts.username or parts.password or parts.query:
        raise UsageError(
            f"No user or password in the URL, where others can read them: set {USER} "
            f"and {PASSWORD}, or use the system's keyring."
        )
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
        raise UsageError(
            "Without TLS, patients' data and the password could be read on the way: "
            "use https://. Plain http:// is for this machine alone."
        )


def _credentials(url: str) -> tuple[str, str] | None:
    """Return user name and password for a server, None if there are none."""
    if user := os.environ.get(USER):
        return user, os.environ.get(PASSWORD, "")
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return None
    try:
        found = keyring.get_credential(url.rstrip("/"), None)
    except KeyringError:
        return None
    return (found.username, found.password) if found else None


@contextmanager
def _in_words() -> Iterator[None]:
    """Turn what goes wrong with a server into a PacsError.

    The errors themselves are dropped, since they quote URLs that name patients.
    """
    from requests import exceptions

    try:
        yield
    except PacsError:
        raise
    except exceptions.HTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            reason = f"refused the user name or password (status {status})"
        elif status == 404:
            reason = "knows no such thing (status 404). Is the URL right?"
        else:
            reason = f"could not do it: status {status}"
        raise PacsError(f"The PACS {reason}.") from None
    except exceptions.TooManyRedirects:
        raise PacsError(
            "The PACS sends to another address. Give that one, if you trust it."
        ) from None
    except (exceptions.RequestException, OSError) as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise PacsError(
                "The certificate of the PACS cannot be verified, and nothing was sent. "
                "If your hospital has an authority of its own, name its certificate "
                "with --ca FILE."
            ) from None
        raise PacsGoneError(
            "The PACS does not answer, or went away in the middle. What is in the "
            "folder is whole: the same command goes on from there."
        ) from None
    except Exception:  # noqa: BLE001 - of any parser
        raise PacsError(
            "What the PACS sent is not whole, or is not what was asked for. Nothing "
            "of it was kept: try again."
        ) from None


def _is_whole(dataset: Dataset) -> bool:
    """Whether there are as many pixels as the header says, if it has any."""
    from pydicom.pixels.utils import get_expected_length

    # pydicom itself refuses encapsulated pixels without an end.
    if "PixelData" not in dataset or dataset.file_meta.TransferSyntaxUID.is_compressed:
        return True
    return len(dataset.PixelData) >= get_expected_length(dataset)


def _text(item: Dataset, keyword: str) -> str:
    value = item.get(keyword)
    return "" if value is None else printable(str(value).replace("\t", " "))
