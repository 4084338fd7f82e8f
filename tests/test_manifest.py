"""The manifest is found, is the one at the root, and everything in it exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from npe2 import PluginManifest
from npe2.manifest.utils import import_python_name

ROOT = Path(__file__).parents[1]
MANIFEST = PluginManifest.from_file(ROOT / "napari.yaml")
COMMANDS = {command.id: command for command in MANIFEST.contributions.commands}


@pytest.fixture
def plugin(npe2pm):
    """Register the installed plugin, and nothing else, for one test."""
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_distribution("napari-cmunet")):
        yield npe2pm


def test_installed_manifest_is_the_one_at_the_root():
    installed = PluginManifest.from_distribution("napari-cmunet")
    installed.validate_imports()
    assert installed.contributions == MANIFEST.contributions
    assert installed.display_name == installed.name


def test_package_links_to_the_manifest_at_the_root():
    inside = ROOT / "napari_cmunet" / "napari.yaml"
    assert inside.samefile(ROOT / "napari.yaml")


def test_icon_is_in_the_package():
    package, _, name = MANIFEST.icon.partition(":")
    assert (ROOT / package / name).is_file()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_command_imports(name):
    assert callable(import_python_name(COMMANDS[name].python_name))


def test_every_command_is_used():
    contributions = MANIFEST.contributions
    used = [
        *contributions.widgets,
        *contributions.sample_data,
        *contributions.readers,
        *contributions.writers,
        *(item for items in contributions.menus.values() for item in items),
    ]
    assert {contribution.command for contribution in used} == set(COMMANDS)


@pytest.mark.slow
def test_menu_and_script_open_the_same_panel(make_napari_viewer_proxy, plugin):
    from napari._app_model import get_app_model

    viewer = make_napari_viewer_proxy()
    viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    assert len(viewer.window.dock_widgets) == 1
    get_app_model().commands.execute_command("napari-cmunet.panel").result()
    assert len(viewer.window.dock_widgets) == 1


def test_menus_can_be_contributed_to():
    from napari._app_model.constants._menus import is_menu_contributable

    assert all(is_menu_contributable(menu) for menu in MANIFEST.contributions.menus)


def test_preferences_have_defaults(plugin, plugin_settings):
    from napari.settings import get_plugin_settings

    settings = get_plugin_settings("napari-cmunet")
    assert settings.segmentation.device == "auto"
    assert settings.segmentation.model == "cmunet-artery"
    assert settings.segmentation.pre_segment is True
    assert settings.folders.working_folder == ""


def test_preferences_refuse_an_unknown_device(plugin, plugin_settings):
    from napari.settings import get_plugin_settings

    settings = get_plugin_settings("napari-cmunet")
    settings.segmentation.device = "cpu"
    with pytest.raises(ValueError, match="abacus"):
        settings.segmentation.device = "abacus"


def test_every_preference_says_what_it_is():
    for category in MANIFEST.contributions.configurations.values():
        for name, preference in category.properties.items():
            assert preference.title, name
            assert preference.description.endswith("."), name
            assert "default" in preference.model_fields_set, name


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        pytest.param("frame", (512, 512), id="frame"),
        pytest.param("cine", (30, 512, 512), id="cine"),
    ],
)
@pytest.mark.slow
def test_samples_are_angiograms(plugin, key, shape):
    manifest = plugin.get_manifest("napari-cmunet")
    samples = {sample.key: sample for sample in manifest.contributions.sample_data}
    [(image, options, kind)] = samples[key].open()
    assert kind == "image"
    assert image.shape == shape
    assert image.dtype in (np.uint8, np.uint16)
    assert np.ptp(image) > 100
    assert options["name"]


@pytest.mark.slow
def test_samples_are_the_same_each_time():
    from napari_cmunet.sample_data import sample_frame

    (first, _, _), (second, _, _) = sample_frame()[0], sample_frame()[0]
    assert np.array_equal(first, second)


def test_labels_have_a_tiff_writer():
    [writer] = MANIFEST.contributions.writers
    assert writer.layer_types == ["labels"]
    assert writer.filename_extensions == [".tif", ".tiff"]
