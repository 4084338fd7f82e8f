"""A real PACS on the loopback address: Orthanc with its DICOMweb plugin.

Debian: ``apt-get install orthanc orthanc-dicomweb``.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.synthetic import PhantomConfig, make_cine
from tests.io.dicom_making import IDENTITY, make_dataset

pytestmark = pytest.mark.slow

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
CINE = make_cine(PhantomConfig(frames=8, size=64, seed=3, bits=12))
USER, PASSWORD = "reader", "a-secret-word"


class TlsRelay:
    """Passes connections with TLS on to a server without, as a hospital's proxy does.

    After ``limit`` bytes from the server it goes away, in the middle of whatever.
    """

    def __init__(self, port, certificate, limit=10**12):
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.load_cert_chain(certificate)
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port, self.server, self.left = self.listening.getsockname()[1], port, limit
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listening.accept()
                threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, raw):
        with contextlib.suppress(OSError):
            client = self.context.wrap_socket(raw, server_side=True)
            server = socket.create_connection(("127.0.0.1", self.server))
            with client, server:
                up = threading.Thread(target=self.upward, args=(client, server))
                up.start()
                while self.left > 0 and (part := server.recv(1000)):
                    client.sendall(part[: self.left])
                    self.left -= len(part)
                if self.left <= 0:
                    self.close()
                for end in (client, server):
                    end.shutdown(socket.SHUT_RDWR)

    def upward(self, client, server):
        with contextlib.suppress(OSError):
            while part := client.recv(65536):
                server.sendall(part)

    def close(self):
        self.listening.close()


def free_port():
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        return made.getsockname()[1]


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory):
    """A server with a password, behind TLS.

    Debian 12's Orthanc crashes when it is to do the TLS itself.
    """
    pytest.importorskip("dicomweb_client")
    if shutil.which("Orthanc") is None or not PLUGIN.exists():
        pytest.skip("Orthanc is not installed: apt-get install orthanc-dicomweb")
    if shutil.which("openssl") is None:
        pytest.skip("openssl, which makes the server's certificate, is not installed")
    folder = tmp_path_factory.mktemp("orthanc")
    both, port = folder / "both.pem", free_port()
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    command += " -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out ca.pem"
    subprocess.run(command.split(), cwd=folder, check=True, capture_output=True)
    both.write_text("".join((folder / n).read_text() for n in ("key.pem", "ca.pem")))
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [str(PLUGIN)],
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {USER: PASSWORD},
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(["Orthanc", folder / "orthanc.json"], stderr=log)
    try:
        for _ in range(300):
            with socket.socket() as made:
                if made.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.1)
        relay = TlsRelay(port, both)
        yield SimpleNamespace(
            port=relay.port, plain=port, ca=folder / "ca.pem", certificate=both
        )
        relay.close()
    finally:
        server.terminate()
        server.wait(30)


@pytest.fixture
def pacs(orthanc, monkeypatch, capsys, tmp_path):
    """The command line against it; as ``pacs(*words)`` -> code, lines, stderr."""
    monkeypatch.setenv("NAPARI_CMUNET_PACS_USER", USER)
    monkeypatch.setenv("NAPARI_CMUNET_PACS_PASSWORD", PASSWORD)

    def run(*words, port=orthanc.port, ca=True, url=""):
        url = url or f"https://127.0.0.1:{port}/dicom-web"
        trust = ["--ca", str(orthanc.ca)] if ca else []
        code = main(["pacs", *map(str, words), "--url", url, *trust])
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        return code, out.splitlines(), err

    run.port = orthanc.port
    return run


@pytest.fixture
def study(pacs, tmp_path):
    """A study of its own in the archive: a cine and a single frame."""
    uid = pydicom.uid.generate_uid()
    series = pydicom.uid.generate_uid()
    paths = []
    for number, frames in enumerate((CINE.frames, CINE.frames[0])):
        made = make_dataset(frames, StudyInstanceUID=uid, SeriesInstanceUID=series)
        made.update({"StudyDate": "20260102", "InstanceNumber": number + 1})
        paths.append(tmp_path / f"sent{number}.dcm")
        made.save_as(paths[-1], enforce_file_format=True)
    code, done, said = pacs("store", *paths)
    assert (code, done, said) == (0, [str(path) for path in paths], "")
    return SimpleNamespace(uid=uid, series=series, paths=paths)


def test_the_whole_way(pacs, study, tmp_path, tiny_model, capsys):
    seg = pytest.importorskip("highdicom").seg
    words = ["--patient-id", IDENTITY["PatientID"], "--date", "20260101-20260103"]
    code, found, said = pacs("find", *words, "--study", study.uid, "--modality", "XA")
    assert (code, said) == (0, "")
    assert found[0].split("\t")[:4] == ["study", "series", "date", "modality"]
    expected = [study.uid, study.series, "20260102", "XA", "2", ""]
    assert [line.split("\t") for line in found[1:]] == [expected]
    assert "Mustermann" in pacs("find", "--study", study.uid, "--identity")[1][1]

    images = tmp_path / "images"
    code, got, said = pacs("get", study.uid, study.series, "-o", images)
    assert (code, len(got), said) == (0, 2, "")
    for path in study.paths:
        sent = pydicom.dcmread(path)
        fetched = pydicom.dcmread(images / f"{sent.SOPInstanceUID}.dcm")
        assert np.array_equal(fetched.pixel_array, sent.pixel_array)

    out = tmp_path / "masks"
    command = ["segment", str(images), "-o", str(out), "--dicom-seg", "--dicom-sc"]
    assert main([*command, "--model", str(tiny_model)]) == 0
    capsys.readouterr()
    made = sorted(out.glob("*_s?*.dcm"))
    before = [path.read_bytes() for path in made]
    assert len(made) == 4
    assert pacs("store", *made)[0::2] == (0, "")
    assert [path.read_bytes() for path in made] == before  # no patient at home

    _, found, _ = pacs("find", "--study", study.uid, "--modality", "SEG", "--identity")
    rows = [line.split("\t") for line in found[1:]]
    assert len(rows) == 2
    assert {row[2] for row in rows} == {"20260102"}
    assert {row[-2] for row in rows} == {IDENTITY["PatientName"]}
    again = tmp_path / "again"
    uid = pydicom.dcmread(study.paths[0]).SOPInstanceUID
    for row in rows:
        _, (path,), _ = pacs("get", *row[:2], "-o", again)
        back = seg.segread(path)
        if back.get_source_image_uids()[0][2] == uid:
            pixels = back.get_pixels_by_source_frame(uid, list(range(1, 9)))
            assert np.array_equal(pixels[..., 0] != 0, read_mask(out / f"{uid}.tif"))
            break
    else:
        pytest.fail("the segmentation of the cine was not found again")


def test_get_goes_on_where_it_was(pacs, study, tmp_path):
    _, first, _ = pacs("get", study.uid, "-o", tmp_path / "a")
    kept = Path(first[0])
    stamp = kept.stat().st_mtime_ns
    Path(first[1]).unlink()
    code, second, _ = pacs("get", study.uid, "-o", tmp_path / "a")
    assert (code, second) == (0, first)
    assert kept.stat().st_mtime_ns == stamp
    assert Path(first[1]).is_file()
    instance = kept.stem
    _, one, _ = pacs("get", study.uid, study.series, instance, "-o", tmp_path / "b")
    assert [Path(path).name for path in one] == [kept.name]


@pytest.mark.parametrize("limit", [0, 1000, 20_000])
def test_the_server_goes_in_the_middle(pacs, orthanc, study, tmp_path, limit):
    """At once, within the list of instances or an image, and within a file."""
    relay = TlsRelay(orthanc.plain, orthanc.certificate, limit)
    folder = tmp_path / "a"
    code, got, said = pacs("get", study.uid, "-o", folder, port=relay.port)
    assert code == 1
    assert "does not answer, or went away in the middle" in said
    assert len(got) < 2
    assert sorted(map(str, folder.glob("*"))) == sorted(got)
    code, got, said = pacs("get", study.uid, "-o", folder)
    assert (code, len(got), said) == (0, 2, "")
    for path in got:
        assert pydicom.dcmread(path).pixel_array.any()


def test_a_wrong_password(pacs, study, monkeypatch):
    monkeypatch.setenv("NAPARI_CMUNET_PACS_PASSWORD", "wrong")
    code, out, said = pacs("find", "--study", study.uid)
    assert (code, out) == (1, [])
    assert "refused the user name or password" in said
    code, out, said = pacs("store", study.paths[0])
    assert (code, out) == (1, [])
    assert "sent0.dcm: The PACS refused the user name" in said


def test_a_password_from_the_keyring(pacs, study, monkeypatch):
    keyring = pytest.importorskip("keyring")
    from keyring.backend import KeyringBackend
    from keyring.credentials import SimpleCredential

    url = f"https://127.0.0.1:{pacs.port}/dicom-web"
    former = keyring.get_keyring()

    class InMemory(KeyringBackend):
        priority = 1

        def get_credential(self, service, username):
            return SimpleCredential(USER, PASSWORD) if service == url else None

        get_password = set_password = delete_password = None

    monkeypatch.delenv("NAPARI_CMUNET_PACS_USER")
    keyring.set_keyring(InMemory())
    try:
        assert pacs("find", "--study", study.uid)[0] == 0
    finally:
        keyring.set_keyring(former)
    assert pacs("find", "--study", study.uid)[0] == 1


def test_a_certificate_that_nobody_vouches_for(pacs, study):
    code, out, said = pacs("find", "--study", study.uid, ca=False)
    assert (code, out) == (1, [])
    assert "certificate of the PACS cannot be verified" in said
    assert "--ca FILE" in said


def test_a_server_that_is_not_there(pacs):
    code, out, said = pacs("find", "--study", "1.2", port=free_port())
    assert (code, out) == (1, [])
    assert "does not answer" in said


def test_what_cannot_be_stored(pacs, study, tmp_path, tiny_model):
    stray = make_dataset(CINE.frames[0], StudyInstanceUID="1.2.3.4")
    for keyword in IDENTITY:
        stray[keyword].value = ""
    stray.save_as(tmp_path / "stray.dcm", enforce_file_format=True)
    half = tmp_path / "half.dcm"
    half.write_bytes(study.paths[0].read_bytes()[:-5000])
    (tmp_path / "text.dcm").write_text("hello")
    files = [tmp_path / "stray.dcm", half, tmp_path / "text.dcm", study.paths[0]]
    code, done, said = pacs("store", *files)
    assert (code, done) == (1, [str(study.paths[0])])
    assert "stray.dcm: The PACS has no study that this object belongs to" in said
    assert "half.dcm: it is no whole DICOM object" in said
    assert "text.dcm: it is no whole DICOM object" in said
    assert "1 of 4 done" in said


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://pacs.hospital.example/dicom-web", "use https://"),
        ("https://a:b@pacs.hospital.example/dicom-web", "No user or password"),
        ("pacs.hospital.example", "is named by a URL"),
    ],
)
def test_addresses_that_are_refused(capsys, url, words):
    pytest.importorskip("dicomweb_client")
    assert main(["pacs", "find", "--study", "1.2", "--url", url]) == 2
    assert words in capsys.readouterr().err
