"""napari's Preferences, there and not there."""

from __future__ import annotations

from types import SimpleNamespace

from npe2 import PluginManifest

from napari_cmunet.gui import preferences
from napari_cmunet.gui.preferences import Preferences, load_preferences, save_preference


def test_defaults_without_a_page(monkeypatch):
    def missing(name):
        raise KeyError(name)

    monkeypatch.setattr(preferences, "get_plugin_settings", missing)
    assert load_preferences() == Preferences()
    save_preference("pre_segment", False)


def test_reads_and_writes_the_page(monkeypatch):
    page = SimpleNamespace(
        segmentation=SimpleNamespace(
            pre_segment=False, model="mine", device=SimpleNamespace(value="cpu")
        ),
        folders=SimpleNamespace(working_folder="/somewhere"),
    )
    monkeypatch.setattr(preferences, "get_plugin_settings", lambda name: page)
    assert load_preferences() == Preferences(False, "mine", "cpu", "/somewhere")
    save_preference("model", "other")
    assert page.segmentation.model == "other"
    save_preference("no such thing", 1)


def test_the_manifest_s_own_page(plugin_settings, npe2pm):
    """Names and types are those of the manifest."""
    npe2pm.register(PluginManifest.from_distribution("napari-cmunet"))
    assert load_preferences() == Preferences()
    save_preference("pre_segment", False)
    assert not load_preferences().pre_segment
